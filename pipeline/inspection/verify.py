"""Is everything in a run folder what its stages left there, do the stored logprobs fit their tokens, and how much do they hold?"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.records import Sample
from pipeline.storage.files import read_json, sha256, write_atomic
from pipeline.storage.journal import archive_file, frame_holds
from pipeline.storage.locks import Lock
from pipeline.storage.shards import read_lines, sealed_shards
from pipeline.storage.topk import TopK, TopKFolder

SAMPLED = ("generate", "score")  # stages whose folders hold samples with frames
BINS = 4096
PUT_BACK = "put it back as it was, from a backup or from version control, or make the stage again with --redo"


@dataclass
class Capture:
    """What the samples of one folder hold, counted while they are checked."""

    samples: int = 0
    tokens: int = 0
    exact: int = 0
    drawn: int = 0
    covered: NDArray[np.int64] = field(
        default_factory=lambda: np.zeros(BINS + 1, np.int64)
    )  # tokens by mass of their exact entries
    tail: float = 0.0

    def add(self, topk: TopK) -> None:
        probability = np.exp(topk.logprobs)
        is_exact = np.arange(topk.ids.shape[1]) < topk.exact[:, None]
        self.exact += int(topk.exact.sum())
        self.drawn += int(((probability > 0) & ~is_exact).sum())
        mass = np.clip(np.where(is_exact, probability, 0.0).sum(axis=1), 0.0, 1.0)
        self.covered += np.bincount(np.round(mass * BINS).astype(np.int64), minlength=BINS + 1)
        self.tail += float(np.exp(topk.tail).sum())

    def mass(self) -> tuple[float, float]:
        """Mean and 1st percentile over tokens of the probability that the exact entries cover."""
        tokens = self.covered.sum()
        low = int(np.searchsorted(np.cumsum(self.covered), 0.01 * tokens))
        return float(self.covered @ np.arange(BINS + 1) / BINS / tokens), low / BINS


def verify(run_dir: Path) -> Iterator[str]:
    """One line a finished stage. Raises PipelineError, after the last line, if anything was not as it should be."""
    folders = _finished(run_dir)
    faults: list[str] = []
    for folder in folders:
        before = len(faults)
        files = read_json(folder / "manifest.json")["files"]
        faults += _file_faults(folder, files)
        extra = _samples_line(folder, faults) if folder.name in SAMPLED else ""
        state = f"{len(faults) - before} faults" if len(faults) > before else "ok"
        yield f"{folder.relative_to(run_dir)!s:<28} {state}: {len(files)} files{extra}"
    if faults:
        raise PipelineError(
            "\n".join(faults[:20])
            + (f"\n… and {len(faults) - 20} more" if len(faults) > 20 else "")
        )


def repair(run_dir: Path) -> Iterator[str]:
    """Set damaged shards aside and open them again, with the samples in them that are whole; copy damaged prompts anew. One line each.

    The stage's own command then makes just the rest of the shards again. Raises PipelineError, after the last line, if something
    cannot be mended.
    """
    beyond: list[str] = []
    for folder in (run_dir / name for name in SAMPLED if (run_dir / name / "begun.json").exists()):
        lock = Lock(folder / "lock")
        if not lock.take():
            raise PipelineError(
                f"{folder}: process {lock.holder} is at work here; wait for it, or end it"
            )
        manifest = folder / "manifest.json"
        files = read_json(manifest)["files"] if manifest.exists() else {}
        yield from _copy_prompts_anew(run_dir, folder, files, beyond)
        names = {path.name for path in sealed_shards(folder)} | {
            name for name in files if name.endswith(".jsonl.gz")
        }
        for name in sorted(names):
            lines, frames = folder / name, folder / name.replace(".jsonl.gz", ".topk")
            if (
                not lines.exists()
                and lines.with_name(name.replace(".jsonl.gz", ".journal.jsonl")).exists()
            ):
                manifest.unlink(missing_ok=True)  # a kill came in the middle of an earlier repair
                continue
            samples = None if any(_file_faults(folder, _only(files, lines))) else _read(lines)
            if (
                samples is None
                or any(_file_faults(folder, _only(files, frames)))
                or len(_whole(samples, frames)) < len(samples)
            ):
                kept = _open_again(lines, frames, samples or [])
                manifest.unlink(missing_ok=True)
                yield f"{lines}: set aside, {kept:,} samples of it kept; pipeline {folder.name} makes the others again"
        lock.release()
    if beyond:
        raise PipelineError("\n".join(beyond))


def _copy_prompts_anew(
    run_dir: Path, folder: Path, files: dict[str, Any], beyond: list[str]
) -> Iterator[str]:
    """Prompts are copies of files elsewhere, of which any that still has the content will do. Those that nobody has go to `beyond`."""
    asked = read_json(folder / "begun.json")["config"]["generate"]["prompt"]
    sources = [*map(Path, asked), *run_dir.glob("*/prompts/*.md")]
    for name in files:
        path = folder / name
        if path.parent.name != "prompts" or not any(_file_faults(folder, {name: files[name]})):
            continue
        found = next(
            (
                source
                for source in sources
                if source.is_file() and sha256(source) == files[name]["sha256"]
            ),
            None,
        )
        if found is None:
            beyond.append(
                f"{path}: is damaged, and no prompt file has its content (SHA-256 {files[name]['sha256']}) any more; {PUT_BACK}"
            )
            continue
        archive_file(path, folder / "quarantine")
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, found.read_bytes())
        yield f"{path}: copied anew from {found}"


def _open_again(lines: Path, frames: Path, samples: list[Sample]) -> int:
    """Turn a sealed shard back into a journal of what is whole in it, and return how much that is."""
    stem = lines.name.split(".")[0]
    whole = _whole(samples, frames)
    if whole and frames.exists():
        write_atomic(lines.with_name(f"{stem}.journal.topk"), frames.read_bytes())
    write_atomic(
        lines.with_name(f"{stem}.journal.jsonl"),
        b"".join(_placed(s, f"{stem}.journal.topk").to_line() for s in whole),
    )
    for path in (lines, frames):
        archive_file(path, lines.parent / "quarantine")
    return len(whole)


def _placed(sample: Sample, file: str) -> Sample:
    return (
        sample.model_copy(update={"frame": sample.frame.model_copy(update={"file": file})})
        if sample.frame
        else sample
    )


def _read(lines: Path) -> list[Sample] | None:
    """The samples of a shard, None if it is damaged."""
    try:
        return [
            Sample.from_line(line, f"{lines}:{number}")
            for number, line in enumerate(read_lines(lines), start=1)
        ]
    except PipelineError:
        return None


def _whole(samples: list[Sample], frames: Path) -> list[Sample]:
    """The samples whose frames are there and hold their checksums."""
    data = frames.read_bytes() if frames.exists() else b""
    return [sample for sample in samples if frame_holds(sample, data)]


def _only(files: dict[str, Any], path: Path) -> dict[str, Any]:
    return {path.name: files[path.name]} if path.name in files else {}


def _finished(run_dir: Path) -> list[Path]:
    manifests = sorted(
        path
        for path in run_dir.glob("*/**/manifest.json")
        if path.relative_to(run_dir).parts[0] != "replaced"
    )
    if not manifests:
        raise PipelineError(
            f"{run_dir}: no stage is finished here; give a run folder, such as runs/quickstart"
        )
    return [path.parent for path in manifests]


def _file_faults(folder: Path, files: dict[str, Any]) -> Iterator[str]:
    mend = (
        "pipeline verify RUN --repair has just that part made again"
        if folder.name in SAMPLED
        else "make the stage again with --redo"
    )
    for name, entry in files.items():
        path = folder / name
        if not path.is_file():
            yield f"{path}: is gone; {mend}"
        elif path.stat().st_size != entry["nbytes"] or sha256(path) != entry["sha256"]:
            yield f"{path}: is not what the stage wrote (its SHA-256 differs); {mend}"


def _samples_line(folder: Path, faults: list[str]) -> str:
    capture, frames = Capture(), TopKFolder(folder)
    seen: Counter[str] = Counter()
    for path in sealed_shards(folder):
        try:
            for number, line in enumerate(read_lines(path), start=1):
                try:
                    seen[_check_sample(line, f"{path}:{number}", frames, capture)] += 1
                except PipelineError as error:
                    faults.append(str(error))
        except PipelineError as error:
            faults.append(str(error))
    faults += [
        f"{folder}: sample {identifier} is there {number} times"
        for identifier, number in seen.items()
        if number > 1
    ]
    nbytes = {
        suffix: sum(path.stat().st_size for path in folder.glob(f"[0-9]*.{suffix}"))
        for suffix in ("jsonl.gz", "topk")
    }
    tokens = max(capture.tokens, 1)
    summary = f", {capture.samples:,} samples, {capture.tokens:,} tokens, {nbytes['jsonl.gz'] / tokens:.1f} B a token of text"
    if not capture.exact:
        return summary
    mean, low = capture.mass()
    return summary + (
        f" and {nbytes['topk'] / tokens:.1f} of logprobs; {capture.exact / tokens:.1f} exact entries a token hold {mean:.4f} of the mass "
        f"(1st percentile {low:.4f}), {capture.drawn / tokens:.1f} draws stand for the rest of the top k, "
        f"and {capture.tail / tokens:.4f} lies beyond"
    )


def _check_sample(line: bytes, where: str, frames: TopKFolder, capture: Capture) -> str:
    """Hold one line against its frame; returns the sample's id."""
    sample = Sample.from_line(line, where)
    capture.samples += 1
    capture.tokens += sample.usage.completion_tokens
    if sample.frame is not None:
        try:
            capture.add(frames.of(sample))
        except PipelineError as error:
            raise PipelineError(f"{where}: sample {sample.id}: {error}") from None
    return sample.id
