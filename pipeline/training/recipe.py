"""The whole of offline distillation in one flat loop: plain torch, one student, no options. `pipeline train` has all the rest.

    python -m pipeline.training.recipe RUN OUT

RUN is a run folder with generate, filter and the student's first weights (train/init) finished; the trained student is left in OUT. Read it
from top to bottom to see what is minimised, or copy it into a training loop of your own.
"""

import sys
from pathlib import Path

import torch
from torch.nn.utils.rnn import pad_sequence

from pipeline.config import Config
from pipeline.data import prompts
from pipeline.data.encoding import Encoder
from pipeline.data.vocabulary import Vocabulary
from pipeline.errors import PipelineError
from pipeline.losses.distillation import Objective, distillation_loss
from pipeline.models.tokenizer import Tokenizer
from pipeline.models.weights import load_weights
from pipeline.storage.files import read_json
from pipeline.storage.samples import Samples
from pipeline.storage.topk import TopKFolder
from pipeline.students import source
from pipeline.training import collation
from pipeline.training.model_checks import logits_of

LEARNING_RATE, OBJECTIVE = 2e-4, Objective(alpha=0.1)


def distil(run_dir: Path, out: Path, batch_size: int = 16) -> list[float]:
    """Train one epoch and save the student. Returns the loss a token of every step, nats."""
    torch.manual_seed(0)
    config = Config.model_validate(read_json(run_dir / "filter" / "begun.json")["config"])
    path, revision = source.saved_model(run_dir / "train" / "init")
    student, tokenizer = load_weights(path, revision, torch.float32), Tokenizer(path, revision)
    if Vocabulary.read(path) or config.train.rows == "score":
        raise PipelineError(
            "the flat recipe knows neither trimmed vocabularies nor scored rows; use pipeline train"
        )
    encoder = Encoder(tokenizer, prompts.load(config.train.prompt), same_tokenizer=True)
    rows = [
        row
        for sample in Samples(run_dir / "filter" / "kept")
        for row in encoder.encode_sample(sample)
    ]
    frames = collation.Frames(TopKFolder(run_dir / "generate"), rows)

    optimizer = torch.optim.AdamW(student.parameters(), lr=LEARNING_RATE)
    losses = []
    for numbers in torch.randperm(len(rows)).split(batch_size):
        batch = [rows[number] for number in numbers]
        ids = pad_sequence(
            [torch.tensor(row.input_ids) for row in batch], batch_first=True
        )  # (B, T)
        labels = pad_sequence(
            [torch.tensor(row.labels) for row in batch], batch_first=True, padding_value=-100
        )  # (B, T)
        teacher = collation.stack(
            [frames.topk(int(number)) for number in numbers]
        )  # (N, K): one row for each token that bears a loss

        hidden = student.base_model(ids).last_hidden_state[
            :, :-1
        ]  # (B, T - 1, H); causal, so padding on the right needs no mask
        bearing = labels[:, 1:] != -100
        head = student.get_output_embeddings().weight
        loss = distillation_loss(
            hidden[bearing],
            head,
            labels[:, 1:][bearing],
            OBJECTIVE,
            teacher,
            logits=logits_of(student),
        )
        (loss.total / bearing.sum()).backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.total.item() / int(bearing.sum()))

    student.save_pretrained(out)
    tokenizer.save(out)
    return losses


if __name__ == "__main__":
    distil(Path(sys.argv[1]), Path(sys.argv[2]))
