"""Is everything in a run folder what its stages left there, and do the stored logprobs fit their tokens?"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.records import Sample
from pipeline.store import read_json, sealed_shards, sha256
from pipeline.topk import STEPS_PER_NAT, ZERO, TopK, TopKFolder


@dataclass
class Capture:
    """What the samples of one folder hold, counted while they are checked."""

    samples: int = 0
    tokens: int = 0
    entries: int = 0
    tails: NDArray[np.int64] = field(default_factory=lambda: np.zeros(ZERO + 1, np.int64))  # tokens by quantised tail

    def add(self, topk: TopK) -> None:
        self.entries += int((topk.logprobs != -np.inf).sum())
        steps = np.where(topk.tail == -np.inf, ZERO, np.round(topk.tail * -STEPS_PER_NAT)).astype(np.int64)
        self.tails += np.bincount(steps, minlength=ZERO + 1)

    def mass(self) -> tuple[float, float]:
        """Mean and 1st percentile over tokens of the probability that the entries cover."""
        covered = 1.0 - np.exp(np.arange(ZERO + 1) / -STEPS_PER_NAT)
        covered[ZERO] = 1.0
        at = int(np.searchsorted(np.cumsum(self.tails), 0.01 * self.tails.sum()))
        return float(self.tails @ covered / self.tails.sum()), float(covered[at])


def verify(run_dir: Path) -> Iterator[str]:
    """One line a finished stage. Raises PipelineError, after the last line, if anything was not as it should be."""
    manifests = sorted(path for path in run_dir.glob("*/**/manifest.json") if path.relative_to(run_dir).parts[0] != "replaced")
    if not manifests:
        raise PipelineError(f"{run_dir}: no stage is finished here; give a run folder, such as runs/quickstart")
    faults: list[str] = []
    for path in manifests:
        before = len(faults)
        files = read_json(path)["files"]
        faults += _file_faults(path.parent, files)
        extra = _samples_line(path.parent, faults) if path.parent.name == "generate" else ""
        state = f"{len(faults) - before} faults" if len(faults) > before else "ok"
        yield f"{path.parent.relative_to(run_dir)!s:<20} {state}: {len(files)} files{extra}"
    if faults:
        raise PipelineError("\n".join(faults[:20]) + (f"\n… and {len(faults) - 20} more" if len(faults) > 20 else ""))


def _file_faults(folder: Path, files: dict[str, Any]) -> Iterator[str]:
    for name, entry in files.items():
        path = folder / name
        if not path.is_file():
            yield f"{path}: is gone; make the stage again with --redo"
        elif path.stat().st_size != entry["nbytes"] or sha256(path) != entry["sha256"]:
            yield f"{path}: is not what the stage wrote (its SHA-256 differs); make the stage again with --redo"


def _samples_line(folder: Path, faults: list[str]) -> str:
    capture, frames = Capture(), TopKFolder(folder)
    seen: Counter[str] = Counter()
    for path in sealed_shards(folder):
        with path.open("rb") as lines:
            for number, line in enumerate(lines, start=1):
                try:
                    seen[_check_sample(line, f"{path}:{number}", frames, capture)] += 1
                except PipelineError as error:
                    faults.append(str(error))
    faults += [f"{folder}: sample {identifier} is there {number} times" for identifier, number in seen.items() if number > 1]
    nbytes = {suffix: sum(path.stat().st_size for path in folder.glob(f"0*.{suffix}")) for suffix in ("jsonl", "topk")}
    summary = f", {capture.samples:,} samples, {capture.tokens:,} tokens, {nbytes['jsonl'] / max(capture.tokens, 1):.1f} B a token of text"
    if not capture.entries:
        return summary
    mean, low = capture.mass()
    return summary + (
        f" and {nbytes['topk'] / capture.tokens:.1f} of logprobs; {capture.entries / capture.tokens:.1f} entries a token "
        f"cover {mean:.4f} of the mass (1st percentile {low:.4f})"
    )


def _check_sample(line: bytes, where: str, frames: TopKFolder, capture: Capture) -> str:
    """Hold one line against its frame; returns the sample's id."""
    sample = Sample.from_line(line, where)
    capture.samples += 1
    capture.tokens += sample.usage.completion_tokens
    if sample.frame is not None:
        topk = frames.frame(sample.frame)
        if topk.ids[:, 0].tolist() != sample.token_ids:
            raise PipelineError(f"{where}: sample {sample.id}: its stored logprobs are not those of its tokens")
        capture.add(topk)
    return sample.id
