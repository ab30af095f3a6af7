"""Duplicates: what is compared, what counts as the same, and which sample is kept."""

import json
import zipfile
from collections.abc import Callable, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from pipeline.config import load
from pipeline.errors import PipelineError
from pipeline.execution import runner
from pipeline.filters import measures
from pipeline.filters.dedup import (
    duplicates,
    embeddings,
    folding,
    keep_best,
    minhash,
    prefix_filter,
)
from pipeline.filters.dedup.buckets import Buckets, Rows
from pipeline.filters.dedup.cosine import Vectors
from pipeline.filters.dedup.duplicates import OtherRun
from pipeline.filters.dedup.jaccard import Sets, jaccard
from pipeline.filters.dedup.shingles import CHARACTERS, shingle
from pipeline.filters.measures import Batch, Ragged
from pipeline.filters.verdict import Verdict
from pipeline.models import resolve
from pipeline.records import Sample, Seed
from pipeline.stages import filter as filter_stage
from pipeline.stages import generate
from pipeline.storage.topk import TopKFolder
from pipeline.verifiers import scorers

Make = Callable[..., Sample]
WORDS = [
    f"{first}{second}"
    for first in "bdfgklmnprstvz"
    for second in ("a", "ea", "i", "oo", "un", "ent")
]


def batch(*samples: Sample) -> Batch:
    return Batch(samples, TopKFolder(Path()))


def numbered(rows: int) -> list[str]:
    return [f"q{row}" for row in range(rows)]


def keepers(verdicts: dict[int, Verdict]) -> dict[int, str]:
    """Return each rejected row, and the id of the sample kept in its place."""
    return {row: str(verdict.value).split(" ")[0] for row, verdict in verdicts.items()}


def texts_with_copies(rows: int, words: int = 60, seed: int = 0) -> list[str]:
    """Return texts of which every second one is an earlier one with a few words changed."""
    random = np.random.default_rng(seed)
    texts = [random.choice(WORDS, words) for _ in range(rows)]
    for row in range(1, rows, 2):
        texts[row] = texts[random.integers(row)].copy()
        texts[row][random.integers(words, size=random.integers(0, 6))] = random.choice(WORDS)
    return [" ".join(text) for text in texts]


def greedy(
    similarity: NDArray[np.float64], order: Sequence[int], threshold: float
) -> dict[int, str]:
    """Return what the filters promise, row by row and without any shortcut."""
    kept: list[int] = []
    keeper_of = {}
    for row in order:
        keeper = next((better for better in kept if similarity[better, row] >= threshold), None)
        if keeper is None:
            kept.append(row)
        else:
            keeper_of[row] = f"q{keeper}"
    return keeper_of


def all_indices(sets: Sequence[set[Any]]) -> NDArray[np.float64]:
    """Return the Jaccard index of all pairs, by the definition."""
    indices = np.zeros((len(sets), len(sets)))
    for row, first in enumerate(sets):
        for column, second in enumerate(sets):
            indices[row, column] = len(first & second) / max(1, len(first | second))
    return indices


def as_sets(sets: Ragged) -> list[set[int]]:
    return [set(sets[row].tolist()) for row in range(len(sets))]


# --- exact duplicates


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (" Yes,  it is\tEVEN\n", "yes, it is even"),
        ('"Yes."', "yes"),
        ("a\u00a0b\u3000c", "A b  c"),
        ("STRASSE", "straße"),
        ("İstanbul", "i̇stanbul"),
        ("a, b", "a b"),
        ("a b", "ab"),
        ("x²", "x2"),
        ("", " ?! "),
        ("broken \ud83d", "broken"),
        ("Σίσυφος", "ΣΊΣΥΦΟΣ"),
    ],
)
def test_digests_agree_with_the_score(sample: Make, one: str, two: str) -> None:
    """The filter and the metrics had different notions of "the same answer"."""
    first, second = duplicates.content_digests(batch(sample(text=one), sample(text=two)))
    assert (first == second).all() == (scorers.normalise(one) == scorers.normalise(two))


def test_folding_is_pythons_own() -> None:
    """A table that folds one character in another way misses its duplicates."""
    characters = [
        chr(point)
        for point in range(0x110000)
        if not 0xD800 <= point < 0xE000 and not chr(point).isspace()
    ]
    folded = folding.fold_texts(characters)
    wrong = [
        character
        for character, text in zip(characters, folded, strict=True)
        if text.decode() != character.casefold()
    ]
    assert not wrong


def test_the_first_of_equal_samples_stays(sample: Make) -> None:
    """The same reply to another input was rejected; a rejected sample must not reject others."""
    samples = [
        sample(0),
        sample(0, id="again", text=" Yes,  it is EVEN\n"),
        sample(1),
        sample(0, id="third"),
    ]
    ids = measures.sample_ids(batch(*samples))
    digests = duplicates.content_digests(batch(*samples))
    assert duplicates.reject_exact(np.arange(4), ids, digests) == {
        1: Verdict("same_as", "s0"),
        3: Verdict("same_as", "s0"),
    }
    assert duplicates.reject_exact(np.array([1, 2, 3]), ids, digests) == {
        3: Verdict("same_as", "again")
    }
    assert duplicates.reject_exact(np.zeros(0, np.int64), ids, digests) == {}


def test_inputs_are_kept_apart(sample: Make) -> None:
    """Joined without a border, different inputs had the same digest."""

    def with_inputs(**inputs: Any) -> Sample:
        return sample(seed=Seed(id="n", inputs=inputs))

    digests = duplicates.content_digests(
        batch(
            with_inputs(a="x", b="y z"),
            with_inputs(a="x y", b="z"),
            with_inputs(b="Y  z", a="x."),
            with_inputs(a="x", c="y z"),
        )
    )
    assert (digests[0] == digests[2]).all()
    assert len(np.unique(digests, axis=0)) == 3


def test_what_another_run_has_kept_goes(sample: Make) -> None:
    """A second run taught the same rows again; the rejected rows of the first do not count."""
    samples = [sample(number) for number in range(4)]
    digests = duplicates.content_digests(batch(*samples))
    other = OtherRun("runs/warm", np.array([1, 2]), ["w0", "w1", "w2"], (digests[[3, 0, 1]],))
    assert duplicates.reject_exact(np.array([0, 2, 3]), numbered(4), digests, [other]) == {
        0: Verdict("same_as", "runs/warm:w1")
    }


# --- near duplicates


def shingles_by_definition(text: str, size: int) -> set[tuple[str, ...]]:
    words = "".join(character if character.isalnum() else " " for character in text.lower()).split()
    size = min(size, len(words))
    return {tuple(words[start : start + size]) for start in range(len(words) - size + 1)} - {()}


def test_shingles_are_those_of_the_plain_definition() -> None:
    """Hashing a whole batch gave other shingles than hashing text by text."""
    texts = [text[: 7 * row] for row, text in enumerate(texts_with_copies(60))] + [
        "",
        "one",
        "One two!",
        "one -- two",
        "...",
        "one two three",
    ]
    hashed = as_sets(shingle(texts, 3))
    expected = [shingles_by_definition(text, 3) for text in texts]
    assert list(map(len, hashed)) == list(map(len, expected))
    assert np.array_equal(all_indices(hashed), all_indices(expected))


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("def f(a):\n    return a - 1\n", "def f(a):\n    return a * 1\n"),
        ("12 - 3 is left at the end", "12 / 3 is left at the end"),
        ("take n-1 of them", "take n/1 of them"),
        ("it is -3 degrees", "it is 3 degrees"),
        ("x**2 and more", "x*2 and more"),
        ("é: a % b is it", "é: a & b is it"),
        ("(a + b) * c", "(a + b) / c"),
        ("5 \u2212 3 is it", "5 / 3 is it"),
    ],
)
def test_an_operator_is_a_word(text: str, other: str) -> None:
    """Programs and equations that differ in an operator were 1.00 alike."""
    first, second = as_sets(shingle([text, other], 3))
    assert first != second


@pytest.mark.parametrize(
    ("text", "other"),
    [
        ("a **bold** word", "a bold word"),
        ("a well-known e-mail of 2024-01-02", "a well known e mail of 2024 01 02"),
        ("- one\n- two\n  * three", "one\ntwo\nthree"),
        ("so -- at last - \nit is 5%", "so at last it is 5"),
        ("5 \u2212 3", "5 - 3"),
    ],
)
def test_other_punctuation_is_no_word(text: str, other: str) -> None:
    """Bold text, bullets, hyphens and dashes must not hide a duplicate."""
    first, second = as_sets(shingle([text, other], 3))
    assert first == second


def test_a_text_has_the_same_shingles_in_any_company() -> None:
    """A stored column depended on the other texts of its shard, or on a very long one."""
    texts = [*texts_with_copies(30), "so long a text " * (CHARACTERS // 10), "短い文", "Straße 1"]
    together = shingle(texts, 3)
    assert all(
        np.array_equal(together[row], shingle([text], 3)[0]) for row, text in enumerate(texts)
    )
    assert len(shingle([], 3)) == 0


@pytest.mark.parametrize(
    ("one", "two", "index"),
    [
        ("the café is open", "THE CAFE\u0301 IS OPEN.", 1.0),
        ("soft\u00adware is here", "software is here", 1.0),
        ("“quoted” — text, here", "quoted text here", 1.0),
        ("die straße hinab", "DIE STRASSE HINAB", 1.0),
        ("x < 3 + y", "x > 3 + y", 0.2),
        ("is it 👍", "is it 👎", 0.0),
        ("我们今天去公园散步", "我们今天去公园跑步", 5 / 9),
        ("อากาศดีมาก", "อากาศดีมาก", 1.0),
        ("no", "yes", 0.0),
        ("no", "No!", 1.0),
        ("...", "???", 0.0),
    ],
)
def test_shingles_know_unicode(one: str, two: str, index: float) -> None:
    """Accents or invisible characters hid a duplicate, or a sign that reverses the sense was
    dropped."""
    sets = shingle([one, two], 3)
    assert jaccard(sets, np.array([0]), sets, np.array([1])) == pytest.approx([index])


@pytest.mark.parametrize("words", [4, 20, 300])
def test_signatures_agree_as_often_as_sets_do(words: int) -> None:
    """Biased signatures miss duplicates, above all short texts, which leave parts empty."""
    random = np.random.default_rng(0)
    pool = random.integers(0, 2**32, (2000, words * 5 // 4), dtype=np.uint32)
    sides = [np.sort(pool[:, :words], axis=1), np.sort(pool[:, -words:], axis=1)]
    sets = Ragged(np.concatenate(sides).ravel(), np.cumsum(np.full(4000, words)))
    signed = minhash.signatures(sets, np.arange(4000))
    index = jaccard(sets, np.arange(2000), sets, np.arange(2000, 4000)).mean()
    assert (signed[:2000] == signed[2000:]).mean() == pytest.approx(index, abs=0.01)


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.7, 0.8, 0.9, 0.97])
def test_bands_find_what_is_just_alike(threshold: float) -> None:
    """Bands that are too long miss pairs at the threshold without a sign."""
    count, length = minhash.bands(threshold)
    assert 1 - (1 - threshold**length) ** count >= minhash.RECALL
    assert count * length <= minhash.PARTS


@pytest.mark.parametrize("threshold", [0.5, 0.8])
def test_near_is_greedy_by_rank(threshold: float) -> None:
    """Compared with the definition over all pairs, at most 3 % of the decisions may differ."""
    sets = shingle(texts_with_copies(400), 3)
    scores = np.random.default_rng(1).integers(0, 5, 400).astype(float)
    expected = greedy(
        all_indices(as_sets(sets)), np.argsort(-scores, kind="stable").tolist(), threshold
    )
    actual = keepers(
        duplicates.reject_near(
            np.arange(400), numbered(400), scores, sets, threshold=threshold, scored=True
        )
    )
    assert len(expected) > 80
    assert len(expected.items() ^ actual.items()) <= 0.03 * len(expected)


def test_prefixes_miss_nothing() -> None:
    """The candidates for crowded buckets missed similar pairs."""
    sets = shingle(texts_with_copies(300), 3)
    rows = np.arange(300)
    indices = all_indices(as_sets(sets))
    buckets = prefix_filter.bucket(sets, rows, rows, 0.6)
    left, right = buckets.pairs(np.arange(len(buckets.rows)))
    similar = {(one, two) for one, two in combinations(range(300), 2) if indices[one, two] >= 0.6}
    assert similar <= set(zip(left.tolist(), right.tolist(), strict=True))


def test_a_template_makes_few_candidates() -> None:
    """10,000 short replies that differ in one word made 50 million pairs."""
    sets = shingle([f"No, it is odd: {number}" for number in range(10_000)], 3)
    assert duplicates.reject_near(np.arange(10_000), numbered(10_000), sets, threshold=0.8) == {}
    chosen = Sets([sets], np.arange(10_000)).buckets(0.8)
    assert chosen.later.sum() < 10_000


def test_a_great_cluster_is_settled_by_its_keeper() -> None:
    """Similar rows were compared with each other instead of with the kept one; several blocks
    must agree on it."""
    base = " ".join(WORDS)
    sets = shingle([f"{base} {number}" for number in range(4_000)], 3)
    verdicts = duplicates.reject_near(np.arange(4_000), numbered(4_000), sets, threshold=0.8)
    assert set(keepers(verdicts).values()) == {"q0"}
    assert len(verdicts) == 3_999


def test_blocks_of_rows_agree_with_all_at_once() -> None:
    """A row that was rejected in one block rejected others in the next."""
    rows = 3_000
    similar = np.triu(np.random.default_rng(0).random((rows, rows)) < 0.002, 1)
    crowd = Buckets.merge([(np.arange(rows, dtype=np.int32), np.full(rows, rows))], rows)

    def find_similar(left: Rows, right: Rows) -> keep_best.SimilarPairs:
        near = np.flatnonzero(similar[left, right])
        near = near[np.lexsort((right[near], left[near]))]
        return keep_best.SimilarPairs(left[near], right[near], np.ones(len(near)))

    decisions = keep_best.keep_best(crowd, find_similar, rows).keeper.tolist()
    actual = {row: f"q{keeper}" for row, keeper in enumerate(decisions) if keeper >= 0}
    assert actual == greedy(similar.astype(float), range(rows), 1.0)


def test_a_chain_keeps_both_ends() -> None:
    """a resembles b and b resembles c, but a does not resemble c: c was rejected although nothing
    like it was kept."""
    words = WORDS[:40]
    a = words
    b = [*words[4:], *WORDS[40:44]]
    c = [*words[8:], *WORDS[40:48]]
    sets = shingle([" ".join(text) for text in (a, b, c)], 1)
    assert keepers(duplicates.reject_near(np.arange(3), numbered(3), sets, threshold=0.8)) == {
        1: "q0"
    }
    scores = np.array([0.0, 1.0, np.nan])
    assert keepers(
        duplicates.reject_near(np.arange(3), numbered(3), scores, sets, threshold=0.8, scored=True)
    ) == {0: "q1", 2: "q1"}


def test_the_value_names_the_keeper_and_the_index() -> None:
    """A reader of the rejected rows needs the kept sample and the similarity."""
    sets = shingle(["a b c d e f g h", "a b c d e f g h i"], 1)
    assert duplicates.reject_near(np.arange(2), ["x/0", "y/0"], sets, threshold=0.8) == {
        1: Verdict("near_same_as", "x/0 (0.89)")
    }


def test_both_means_input_and_reply(sample: Make) -> None:
    """Another answer to the same question, or the same answer to another one, was rejected."""
    reply = " ".join(WORDS[:40])
    other = " ".join(WORDS[40:80])
    samples = [
        sample(text=text, seed=Seed(id=f"n{row}", inputs={"question": question}))
        for row, (question, text) in enumerate(
            [(reply, reply), (reply, other), (other, reply), (reply + " x", reply + " x")]
        )
    ]
    columns = [duplicates.shingle_sets(batch(*samples), of, 3) for of in ("reply", "input")]
    assert keepers(duplicates.reject_near(np.arange(4), numbered(4), *columns, threshold=0.8)) == {
        3: "q0"
    }
    assert keepers(
        duplicates.reject_near(np.arange(4), numbered(4), columns[0], threshold=0.8)
    ) == {
        2: "q0",
        3: "q0",
    }


def test_near_rows_of_other_runs_go_first() -> None:
    """A row was rejected for one of its own run, which another run then rejected as well."""
    texts = [" ".join([*WORDS[:40], end]) for end in ("one", "two", "three")]
    ours = shingle([*texts, "something else"], 3)
    theirs = shingle(["nothing", texts[0]], 3)
    none = OtherRun("runs/cold", np.array([0]), ["c0", "c1"], (theirs,))
    warm = OtherRun("runs/warm", np.array([0, 1]), ["w0", "w1"], (theirs,))
    verdicts = duplicates.reject_near(
        np.arange(4), numbered(4), ours, threshold=0.8, others=[none, warm]
    )
    assert keepers(verdicts) == dict.fromkeys(range(3), "runs/warm:w1")
    assert keepers(
        duplicates.reject_near(np.arange(4), numbered(4), ours, threshold=0.8, others=[none])
    ) == {
        1: "q0",
        2: "q0",
    }


def test_texts_without_words_are_like_nothing() -> None:
    """Empty sets divided by zero, or were all duplicates of each other."""
    sets = shingle(["", "...", "a", ""], 3)
    assert duplicates.reject_near(np.arange(4), numbered(4), sets, threshold=0.8) == {}
    assert duplicates.reject_near(np.arange(2), numbered(4), sets, threshold=0.8) == {}
    assert duplicates.reject_near(np.zeros(0, np.int64), numbered(4), sets, threshold=0.8) == {}


# --- semantic duplicates


def test_semantic_is_greedy_by_rank() -> None:
    """With more rows than a block has, decisions are still those of the definition."""
    random = np.random.default_rng(0)
    vectors = random.normal(size=(1500, 8))
    unit = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
    cosines = unit.astype(np.float32) @ unit.astype(np.float32).T
    expected = greedy(cosines.astype(float), range(1499, -1, -1), 0.95)
    verdicts = duplicates.reject_semantic(
        np.arange(1500), numbered(1500), np.arange(1500.0), unit, threshold=0.95, scored=True
    )
    assert keepers(verdicts) == expected
    assert {verdict.reason for verdict in verdicts.values()} == {"means_the_same_as"}


def test_semantic_against_another_run() -> None:
    """Other runs were not compared with; of two columns the lesser similarity counts."""
    unit = np.eye(4, dtype=np.float16)
    other = OtherRun("runs/warm", np.array([1]), ["w0", "w1"], (unit[[0, 2]],))
    assert keepers(
        duplicates.reject_semantic(np.arange(4), numbered(4), unit, threshold=0.9, others=[other])
    ) == {2: "runs/warm:w1"}
    assert Vectors(
        [np.ones((2, 1), np.float16), np.eye(2, dtype=np.float16)], np.arange(2)
    ).deduplicate(0.5).keeper.tolist() == [-1, -1]


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small random encoder that knows a few words."""
    import torch
    from transformers import BertConfig, BertModel, BertTokenizer

    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "yes", "no", "it", "is", "even", "odd"]
    tokenizer = BertTokenizer(vocab={word: number for number, word in enumerate(words)})
    tokenizer.save_pretrained(folder)
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 16,
    }
    BertModel(
        BertConfig(vocab_size=len(words), max_position_embeddings=16, **sizes)
    ).save_pretrained(folder)
    return folder


def test_vectors_do_not_depend_on_their_neighbours(sample: Make, encoder: Path) -> None:
    """Padding or another text's windows were averaged in: vectors depended on the batch."""
    measure = embeddings.measure("reply", str(encoder), max_tokens=8)
    texts = ["yes", "no it is odd", "yes it is even " * 9, "", "no it is odd"]
    together = measure(batch(*(sample(text=text) for text in texts)))
    assert isinstance(together, np.ndarray)
    assert together.dtype == np.float16
    assert np.linalg.norm(together.astype(float), axis=1) == pytest.approx(1.0, abs=2e-3)
    one_by_one: Any = [measure(batch(sample(text=text))) for text in texts]
    alone = np.concatenate(one_by_one)
    assert together == pytest.approx(alone, abs=2e-3)
    assert keepers(
        duplicates.reject_semantic(np.arange(5), numbered(5), together, threshold=0.999)
    ) == {4: "q1"}


def test_the_semantic_filter_looks_at_other_runs(workshop: Path, encoder: Path) -> None:
    """filter.against had no effect on the semantic filter."""
    runner.execute(generate, load(workshop / "config.yaml"))
    runner.execute(filter_stage, load(workshop / "config.yaml"))
    (workshop / "run").rename(workshop / "before")
    semantic = [
        f"filter.semantic={{model: {encoder}, of: [reply]}}",
        f"filter.against=[{workshop / 'before'}]",
        "filter.duplicate=false",
    ]
    config = load(workshop / "config.yaml", ["generate.seed=1", "filter.correct=false", *semantic])
    runner.execute(generate, config)
    with pytest.raises(PipelineError, match=r"no sample is kept: filter 'semantic' .*'before:n\d"):
        runner.execute(filter_stage, config)


def test_an_encoder_of_a_package_is_unpacked_once(
    tmp_path: Path, encoder: Path, sample: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some packages hold a model's folder as an archive; a half unpacked one was used."""
    package = tmp_path / "site"
    (package / "carrier-1.0.dist-info").mkdir(parents=True)
    (package / "carrier-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: carrier\nVersion: 1.0\n"
    )
    (package / "carrier-1.0.dist-info" / "RECORD").write_text("model.zip,,\n")
    with zipfile.ZipFile(package / "model.zip", "w") as archive:
        for file in encoder.iterdir():
            archive.write(file, file.name)
    monkeypatch.syspath_prepend(package)
    monkeypatch.setenv("PIPELINE_CACHE", str(tmp_path / "cache"))
    folder = Path(resolve.model_path("package:carrier/model.zip"))
    assert json.loads((folder / "config.json").read_text())["hidden_size"] == 16
    assert len(embeddings.measure("input", "package:carrier/model.zip")(batch(sample()))) == 1
    with pytest.raises(PipelineError, match=r"carrier 1.0 has no other.zip; its models: model.zip"):
        resolve.model_path("package:carrier/other.zip")


def test_a_folder_without_an_encoder_is_an_error(tmp_path: Path, sample: Make) -> None:
    """The user saw a worker's stack trace instead of the faulty setting."""
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    with pytest.raises(PipelineError, match="no encoder can be loaded"):
        embeddings.measure("reply", str(tmp_path))(batch(sample()))


def test_inputs_of_several_values_are_compared_by_their_text(sample: Make) -> None:
    """Brackets, quotes and names of keys made two inputs look more similar than they are."""
    inputs = {"options": ["one", {"b": 3, "a": "two"}], "none": None}
    assert duplicates.compared_texts(batch(sample(seed=Seed(id="n", inputs=inputs))), "input") == [
        "\none\ntwo\n3"
    ]
