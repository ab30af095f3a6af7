"""Check a finished run: its files, its samples, and how much mass the stored logprobs cover."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import PipelineError
from pipeline.records import Sample
from pipeline.storage.files import read_object, sha256, write_atomic
from pipeline.storage.journal import archive_file, frame_holds
from pipeline.storage.locks import Lock
from pipeline.storage.shards import read_lines, sealed_shards
from pipeline.storage.topk import TopK, TopKFolder

SAMPLED = ("generate", "score")  # stages whose folders hold samples with frames
BINS = 4096
MAX_FAULTS = 20  # in the error message
PUT_BACK = "put it back from a backup or from version control, or run the stage again with --redo"

Files = dict[str, Any]  # {name: {"nbytes": …, "sha256": …}} of a manifest


@dataclass
class Capture:
    """Counts over the samples of one folder, taken while they are checked."""

    samples: int = 0
    tokens: int = 0
    exact: int = 0  # entries
    drawn: int = 0  # sampled entries, which stand for the rest of the top k
    tail: float = 0.0
    # histogram over tokens of the mass that their exact entries cover, in BINS + 1 bins
    covered: NDArray[np.int64] = field(default_factory=lambda: np.zeros(BINS + 1, np.int64))

    def add(self, topk: TopK) -> None:
        """Count the entries and the mass of one sample."""
        probability = np.exp(topk.logprobs)
        is_exact = np.arange(topk.ids.shape[1]) < topk.exact[:, None]
        self.exact += int(topk.exact.sum())
        self.drawn += int(((probability > 0) & ~is_exact).sum())
        mass = np.clip(np.where(is_exact, probability, 0.0).sum(axis=1), 0.0, 1.0)
        self.covered += np.bincount(np.round(mass * BINS).astype(np.int64), minlength=BINS + 1)
        self.tail += float(np.exp(topk.tail).sum())

    def mass(self) -> tuple[float, float]:
        """Return mean and 1st percentile over tokens of the mass that exact entries cover."""
        tokens = self.covered.sum()
        low = int(np.searchsorted(np.cumsum(self.covered), 0.01 * tokens))
        return float(self.covered @ np.arange(BINS + 1) / BINS / tokens), low / BINS


def verify(run_dir: Path) -> Iterator[str]:
    """Yield one line for each finished stage.

    Raises PipelineError after the last line if anything is damaged.
    """
    faults: list[str] = []
    for folder in _finished(run_dir):
        files = read_object(folder / "manifest.json", "files")["files"]
        damage = list(_file_faults(folder, files))
        summary = _check_samples(folder, damage) if folder.name in SAMPLED else ""
        state = f"{len(damage)} faults" if damage else "ok"
        yield f"{folder.relative_to(run_dir)!s:<28} {state}: {len(files)} files{summary}"
        faults += damage
    if faults:
        more = len(faults) - MAX_FAULTS
        listed = faults[:MAX_FAULTS] + ([f"… and {more} more"] if more > 0 else [])
        raise PipelineError("\n".join(listed))


def repair(run_dir: Path) -> Iterator[str]:
    """Archive damaged shards and reopen them with their intact samples; restore damaged prompts.

    Yields one line for each repaired file. Then the stage's own command regenerates only what is
    missing. Raises PipelineError after the last line if something cannot be repaired.
    """
    beyond_repair: list[str] = []
    for folder in (run_dir / name for name in SAMPLED):
        if not (folder / "begun.json").exists():
            continue
        lock = Lock(folder / "lock")
        if not lock.take():
            raise PipelineError(
                f"{folder}: process {lock.holder} is at work here; wait for it, or end it"
            )
        manifest = folder / "manifest.json"
        files = read_object(manifest, "files")["files"] if manifest.exists() else {}
        yield from _restore_prompts(run_dir, folder, files, beyond_repair)
        yield from _repair_shards(folder, files)
        lock.release()
    if beyond_repair:
        raise PipelineError("\n".join(beyond_repair))


def _restore_prompts(
    run_dir: Path, folder: Path, files: Files, beyond_repair: list[str]
) -> Iterator[str]:
    """Restore each damaged prompt from a file that still has the same content.

    Adds a line to `beyond_repair` for each prompt whose content no file has.
    """
    configured = read_object(folder / "begun.json", "config")["config"]["generate"]["prompt"]
    candidates = [*map(Path, configured), *run_dir.glob("*/prompts/*.md")]
    for name, entry in files.items():
        path = folder / name
        if path.parent.name != "prompts" or not any(_file_faults(folder, {name: entry})):
            continue
        copies = (p for p in candidates if p.is_file() and sha256(p) == entry["sha256"])
        source = next(copies, None)
        if source is None:
            beyond_repair.append(
                f"{path}: is damaged, and no prompt file has its content any more "
                f"(SHA-256 {entry['sha256']}); {PUT_BACK}"
            )
            continue
        archive_file(path, folder / "quarantine")
        path.parent.mkdir(exist_ok=True)
        write_atomic(path, source.read_bytes())
        yield f"{path}: restored from {source}"


def _repair_shards(folder: Path, files: Files) -> Iterator[str]:
    """Reopen the damaged shards, and delete the manifest because the stage is then unfinished."""
    manifest = folder / "manifest.json"
    names = {path.name for path in sealed_shards(folder)}
    names |= {name for name in files if name.endswith(".jsonl.gz")}
    for name in sorted(names):
        lines = folder / name
        if not lines.exists() and _journal(lines, "jsonl").exists():
            manifest.unlink(missing_ok=True)  # a repair was killed before it deleted the manifest
            continue
        intact = _intact_samples(folder, lines, files)
        if intact is not None:
            _reopen(lines, intact)
            manifest.unlink(missing_ok=True)
            yield (
                f"{lines}: archived in quarantine/, {len(intact):,} of its samples kept; "
                f"pipeline {folder.name} regenerates the others"
            )


def _intact_samples(folder: Path, lines: Path, files: Files) -> list[Sample] | None:
    """Return the intact samples of a damaged shard; None if the shard has no damage."""
    frames = _frames(lines)
    samples = None if any(_file_faults(folder, _entry(files, lines))) else _read(lines)
    intact = _with_intact_frames(samples or [], frames)
    damaged = (
        samples is None
        or any(_file_faults(folder, _entry(files, frames)))
        or len(intact) < len(samples)
    )
    return intact if damaged else None


def _reopen(lines: Path, intact: list[Sample]) -> None:
    """Turn a sealed shard back into a journal of its intact samples."""
    frames, journal = _frames(lines), _journal(lines, "topk")
    if intact and frames.exists():
        write_atomic(journal, frames.read_bytes())
    moved = [_with_frame_in(sample, journal.name) for sample in intact]
    write_atomic(_journal(lines, "jsonl"), b"".join(sample.to_line() for sample in moved))
    for path in (lines, frames):
        archive_file(path, lines.parent / "quarantine")


def _frames(lines: Path) -> Path:
    return lines.with_name(lines.name.replace(".jsonl.gz", ".topk"))


def _journal(lines: Path, suffix: str) -> Path:
    return lines.with_name(lines.name.replace(".jsonl.gz", f".journal.{suffix}"))


def _with_frame_in(sample: Sample, file: str) -> Sample:
    if sample.frame is None:
        return sample
    return sample.model_copy(update={"frame": sample.frame.model_copy(update={"file": file})})


def _read(lines: Path) -> list[Sample] | None:
    """Return the samples of a shard; None if it is damaged."""
    try:
        return [
            Sample.from_line(line, f"{lines}:{number}")
            for number, line in enumerate(read_lines(lines), start=1)
        ]
    except PipelineError:
        return None


def _with_intact_frames(samples: list[Sample], frames: Path) -> list[Sample]:
    """Return the samples whose frames exist and match their checksums."""
    data = frames.read_bytes() if frames.exists() else b""
    return [sample for sample in samples if frame_holds(sample, data)]


def _entry(files: Files, path: Path) -> Files:
    return {path.name: files[path.name]} if path.name in files else {}


def _finished(run_dir: Path) -> list[Path]:
    manifests = sorted(run_dir.glob("*/**/manifest.json"))
    folders = [path.parent for path in manifests]
    folders = [path for path in folders if path.relative_to(run_dir).parts[0] != "replaced"]
    if not folders:
        raise PipelineError(
            f"{run_dir}: no stage is finished here; give a run folder, such as runs/quickstart"
        )
    return folders


def _file_faults(folder: Path, files: Files) -> Iterator[str]:
    fix = (
        "pipeline verify RUN --repair has only this part regenerated"
        if folder.name in SAMPLED
        else "run the stage again with --redo"
    )
    for name, entry in files.items():
        path = folder / name
        if not path.is_file():
            yield f"{path}: is missing; {fix}"
        elif path.stat().st_size != entry["nbytes"] or sha256(path) != entry["sha256"]:
            yield f"{path}: is not what the stage wrote (its SHA-256 differs); {fix}"


def _check_samples(folder: Path, faults: list[str]) -> str:
    """Check every sample of a folder, append its faults, and return a summary."""
    capture, frames = Capture(), TopKFolder(folder)
    occurrences: Counter[str] = Counter()
    for path in sealed_shards(folder):
        try:
            for number, line in enumerate(read_lines(path), start=1):
                try:
                    occurrences[_check_sample(line, f"{path}:{number}", frames, capture)] += 1
                except PipelineError as error:
                    faults.append(str(error))
        except PipelineError as error:
            faults.append(str(error))
    for identifier, number in occurrences.items():
        if number > 1:
            faults.append(f"{folder}: sample {identifier} is stored {number} times")
    return _summary(folder, capture)


def _check_sample(line: bytes, where: str, frames: TopKFolder, capture: Capture) -> str:
    """Check one line against its frame and count it; return the sample's id."""
    sample = Sample.from_line(line, where)
    capture.samples += 1
    capture.tokens += sample.usage.completion_tokens
    if sample.frame is not None:
        try:
            capture.add(frames.topk_of(sample))
        except PipelineError as error:
            raise PipelineError(f"{where}: sample {sample.id}: {error}") from None
    return sample.id


def _summary(folder: Path, capture: Capture) -> str:
    tokens = max(capture.tokens, 1)
    text_bytes = _nbytes(folder, "jsonl.gz") / tokens
    summary = (
        f", {capture.samples:,} samples, {capture.tokens:,} tokens, text {text_bytes:.1f} B/token"
    )
    if not capture.exact:
        return summary
    mean, low = capture.mass()
    return summary + (
        f", logprobs {_nbytes(folder, 'topk') / tokens:.1f} B/token; "
        f"{capture.exact / tokens:.1f} exact entries/token cover {mean:.4f} of the mass "
        f"(1st percentile {low:.4f}), {capture.drawn / tokens:.1f} sampled entries/token stand "
        f"for the rest of the top k, and the tail holds {capture.tail / tokens:.4f}"
    )


def _nbytes(folder: Path, suffix: str) -> int:
    return sum(path.stat().st_size for path in folder.glob(f"[0-9]*.{suffix}"))
