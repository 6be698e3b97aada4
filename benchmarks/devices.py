"""Memory and traffic of gradients over 1 to 64 devices, by their compiled programs, and the time of spreading samples."""

from __future__ import annotations

from typing import Any

from benchmarks.report import Hold, Table, spread
from benchmarks.runner import Failed, Session, Worker, alternate, ratio

TITLE = "Many devices: memory and traffic"
BUDGET = 100.0
AUTOMATIC, WAYS = "automatic axes", ("automatic axes", "explicit axes", "shard_map")
EXAMPLES, DEVICES = (8, 64, 512, 8192), (1, 8, 64)
SAMPLES, CHUNK = 2**20, 1024
TIMED_CHUNK, TIMED_DEVICES = 2**14, 8
MOST, MOST_TIME = 1.2, 1.1


def measure(session: Session) -> dict[str, Any]:
    """Compiled programs of a batch and of samples, and samples on one device and on eight, timed in turn."""
    worker = Worker("devices")
    data: dict[str, Any] = {"versions": {"mcgrad": worker.versions}, "batch": {}, "samples": {}, "timed": {}}

    def facts(workload: str, **arguments: Any) -> dict[str, Any]:
        try:
            return worker.ask(60 * session.patience, do="facts", workload=workload, arguments=arguments)
        except Failed as error:
            return {"error": str(error)}

    def of_batch(way: str, examples: int, devices: int) -> None:
        rows = data["batch"].setdefault(way, {})
        rows[f"{examples} on {devices}"] = facts("batch", way=way, num_examples=examples, num_devices=devices)

    try:
        for examples in EXAMPLES[1:3] if session.quick else EXAMPLES:
            for devices in DEVICES:
                if devices <= examples:
                    of_batch(AUTOMATIC, examples, devices)
                    if devices > 1:
                        of_batch(AUTOMATIC, examples // devices, 1)  # the part of one device
        for way in WAYS[1:]:
            for devices in DEVICES[1:]:
                of_batch(way, 512, devices)
        for chunk in (None, CHUNK):
            for devices in DEVICES:
                name, arguments = str(devices), {"num_devices": devices, "chunk_size": chunk}
                found = data["samples"].setdefault("at once" if chunk is None else "in chunks", {})
                found[name] = facts("samples", num_samples=SAMPLES, **arguments)
                own = {"num_samples": SAMPLES // devices, "num_devices": 1, "chunk_size": chunk}
                found[f"own {name}"] = facts("samples", **own)
        entries = {
            str(devices): session.build(
                worker, "samples", num_samples=SAMPLES, num_devices=devices, chunk_size=TIMED_CHUNK, run=True
            )
            for devices in (1, TIMED_DEVICES)
        }
        alternate(entries, 3 if session.quick else 9)
        data["timed"] = {name: entry.measured for name, entry in entries.items()}
    finally:
        worker.close()
    return data


def report(data: dict[str, Any]) -> list[Any]:
    """The tables and the holds."""
    headings = ("batch", "devices", "temporary of a device (MiB)", "of its own part (MiB)", "collectives", "bytes sent")
    batch = Table("a batch over devices: four samples for each example, one gradient", headings)
    singles = {name.split(" on ")[0]: row for name, row in data["batch"][AUTOMATIC].items() if name.endswith(" on 1")}
    memory: dict[str, float] = {}
    traffic, sent = {}, {}
    for way, rows in data["batch"].items():
        for name, row in rows.items():
            examples, devices = name.split(" on ")
            if int(examples) not in EXAMPLES:
                continue
            own = singles.get(str(int(examples) // int(devices)), {})
            what = f"{int(examples):,} examples, {way}"
            batch.rows.append((what, devices, _mib(row), _mib(own), _counts(row), f"{row.get('sent', 0):,}"))
            if int(devices) > 1 and "counts" in row:
                traffic[f"{what}, {devices} devices"] = row["counts"]
                sent[f"{what}, {devices} devices"] = row["sent"] / row["gradient"]
            if int(devices) > 1 and "bytes" in row and "bytes" in own and way == AUTOMATIC:
                memory[f"{examples} examples on {devices}"] = row["bytes"] / (own["bytes"] + row["gradient"])
    headings = ("samples", "devices", *headings[2:])
    samples = Table(f"{SAMPLES:,} samples over devices, of a program with two draws of 8 numbers", headings)
    growing = {}
    for name, rows in data["samples"].items():
        for devices in map(str, DEVICES):
            row, own = rows[devices], rows[f"own {devices}"]
            counts, size = _counts(row), f"{row.get('sent', 0):,}"
            samples.rows.append((name, devices, _mib(row), _mib(own), counts, size))
            if devices != "1" and "bytes" in row and "bytes" in own:
                memory[f"samples {name} on {devices}"] = row["bytes"] / own["bytes"]
                growing[f"{name} on {devices}"] = row["sent"]
    one = {"all-reduce": 1}
    apart = [name for name, counts in traffic.items() if {k: n for k, n in counts.items() if n} != one]
    times = [data["timed"].get(str(devices), {}).get("times") for devices in (1, TIMED_DEVICES)]
    timed = ratio(times[1], times[0]) if all(times) else None
    return [
        "Devices are those that XLA makes of the processor; memory is the temporary memory of one device (`memory_analysis`), "
        "collectives and the bytes of their results are those in the text of the compiled program. The parameters of the "
        "autoencoder (784 - 64 - 32 bits - 784) and so its gradient have "
        f"{next((row['gradient'] for row in data['batch'][AUTOMATIC].values() if 'gradient' in row), 0):,} bytes.",
        batch,
        samples,
        Hold(
            "data parallel takes one all-reduce and no other collective: automatic axes, explicit axes, `shard_map`",
            not apart if traffic else None,
            f"{len(traffic)} programs{'; others: ' + ', '.join(apart) if apart else ''}.",
        ),
        _at_most(sent, 1.01, "and sends the gradient once, whatever the batch (within 1.01)"),
        Hold(
            "what samples over devices send does not grow with their number: less than a byte for each",
            max(growing.values()) < SAMPLES if growing else None,
            f"Most {max(growing.values(), default=0):,} bytes.",
        ),
        _at_most(
            memory,
            MOST,
            "the temporary memory of a device is that of its own part and of the gradient to be summed (within 1.2)",
        ),
        Hold(
            f"{SAMPLES:,} samples over {TIMED_DEVICES} devices of one processor take at most 1.1 times as long as on one",
            timed[1] <= MOST_TIME if timed else None,
            f"Ratio {spread(timed)}." if timed else "",
        ),
    ]


def _mib(row: dict[str, Any]) -> str:
    return f"{row['bytes'] / 2**20:,.2f}" if "bytes" in row else row.get("error", "")


def _counts(row: dict[str, Any]) -> str:
    return ", ".join(f"{n} {name}" for name, n in row.get("counts", {}).items() if n) or "none"


def _at_most(ratios: dict[str, float], limit: float, statement: str) -> Hold:
    largest = max(ratios, key=lambda name: ratios[name]) if ratios else ""
    told = f"Largest {ratios[largest]:.3f} ({largest}), of {len(ratios)}." if ratios else ""
    return Hold(statement, ratios[largest] <= limit if ratios else None, told)
