"""Offline distillation in one flat loop: plain torch, one student, no options.

    python -m pipeline.training.recipe RUN OUT

RUN is a run folder in which generate, filter and the student's first weights (train/init) are
finished. OUT receives the trained student. Read the function from top to bottom to see what is
minimised, or copy it into your own training loop; `pipeline train` does the same with all options.

Dimension names: B rows of a batch, T tokens of the longest row, N tokens that have a loss, K stored
entries of a token, V vocabulary, H hidden.
"""

import sys
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence

from pipeline.config import Config
from pipeline.data import prompts
from pipeline.data.encoding import IGNORED, Encoder
from pipeline.data.vocabulary import Vocabulary
from pipeline.errors import PipelineError
from pipeline.losses.distillation import Objective, distillation_loss
from pipeline.models import saving
from pipeline.models.tokenizer import Tokenizer
from pipeline.models.weights import load_weights
from pipeline.storage.files import read_object
from pipeline.storage.samples import Samples
from pipeline.storage.topk import TopKFolder
from pipeline.students import source
from pipeline.training import collation
from pipeline.training.model_checks import logits_of

LEARNING_RATE = 1e-4
# Half cross-entropy, half KL(teacher || student). By default, pipeline train learns the tokens of a
# short answer that is right or wrong by cross-entropy alone (alpha: answer).
OBJECTIVE = Objective(alpha=0.5)


def distil(run_dir: Path, out: Path, batch_size: int = 16) -> list[float]:
    """Train for one epoch and save the student. Returns the loss of each step in nats/token."""
    # 1. The student: its first weights and its tokenizer.
    torch.manual_seed(0)
    begun = read_object(run_dir / "filter" / "begun.json", "config")
    config = Config.model_validate(begun["config"])
    path, revision = source.saved_model(run_dir / "train" / "init")
    if Vocabulary.read(path) or config.train.rows == "score":
        raise PipelineError(
            "the flat recipe knows neither trimmed vocabularies nor scored rows; use pipeline train"
        )
    student = load_weights(path, revision, torch.float32)
    tokenizer = Tokenizer(path, revision)

    # 2. The rows: each kept sample becomes prompt + reply as token ids, with labels on the reply.
    encoder = Encoder(tokenizer, prompts.load(config.train.prompt), same_tokenizer=True)
    rows = []
    for sample in Samples(run_dir / "filter" / "kept"):
        rows += encoder.encode_sample(sample)

    # 3. The teacher: its top-k token probabilities, stored while it generated the samples.
    frames = collation.Frames(TopKFolder(run_dir / "generate"), rows)

    optimizer = torch.optim.AdamW(student.parameters(), lr=LEARNING_RATE)
    losses = []
    for numbers in torch.randperm(len(rows)).split(batch_size):
        # 4. A batch: pad the rows, and look up the teacher's distribution of each reply token.
        batch = [rows[number] for number in numbers]
        input_ids = pad([row.input_ids for row in batch], 0)  # (B, T)
        labels = pad([row.labels for row in batch], IGNORED)  # (B, T)
        teacher = collation.stack([frames.topk(int(number)) for number in numbers])  # (N, K)

        # 5. Forward: hidden states only. Each predicts the next token, so the last one has no use.
        # The padding needs no mask: it is on the right, and attention looks to the left.
        hidden = student.base_model(input_ids).last_hidden_state[:, :-1]  # (B, T - 1, H)
        targets = labels[:, 1:]  # (B, T - 1)
        mask = targets != IGNORED  # N of them are True

        # 6. The loss, summed over N tokens. It multiplies hidden states with the lm_head (V, H) in
        # chunks, so the (N, V) logits never exist as a whole.
        loss = distillation_loss(
            hidden[mask],
            student.get_output_embeddings().weight,
            targets[mask],
            OBJECTIVE,
            teacher,
            logits=logits_of(student),
        )

        # 7. Backward and step, on the mean over tokens.
        mean = loss.total / mask.sum()
        mean.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(mean.item())

    # 8. An ordinary model folder that any library can load.
    saving.save(student, Path(out))
    tokenizer.save(out)
    return losses


def pad(rows: list[list[int]], value: int) -> torch.Tensor:
    """Return (B, T) rows of equal length, padded on the right."""
    tensors = [torch.tensor(row) for row in rows]
    return pad_sequence(tensors, batch_first=True, padding_value=value)


if __name__ == "__main__":
    distil(Path(sys.argv[1]), Path(sys.argv[2]))
