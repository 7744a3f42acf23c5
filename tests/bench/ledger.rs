//! What a receipt costs the ledger: opened and settled, in order, and with a thousand open ones settled out of order.
//!
//! Holds the aim that promise 2 costs a record at most 100 ns.

use std::hint::black_box;
use std::time::Duration;

use criterion::{BatchSize, Criterion, Throughput};
use postrider::kafka::ledger::Ledger;
use postrider::record::SourceOffset;

const RECEIPTS: i64 = 100_000;
const OPEN: i64 = 1_000;
/// Has no factor in common with [`OPEN`], so that a walk in steps of it meets every open receipt once.
const STRIDE: i64 = 617;

/// One pass over [`RECEIPTS`].
type Way = fn(&mut Ledger);

fn in_order(ledger: &mut Ledger) {
    for offset in 0..RECEIPTS {
        let offset = SourceOffset(black_box(offset));
        ledger.open(offset, Duration::ZERO);
        ledger.settle(offset);
    }
}

/// Opens a thousand, settles them all in a scattered order, and so on. The oldest is always among those open.
fn out_of_order(ledger: &mut Ledger) {
    for block in 0..RECEIPTS / OPEN {
        let first = block * OPEN;
        for offset in first..first + OPEN {
            ledger.open(SourceOffset(black_box(offset)), Duration::ZERO);
        }
        for step in 1..=OPEN {
            ledger.settle(SourceOffset(black_box(first + step * STRIDE % OPEN)));
        }
    }
}

/// A thousand stay open: each that is settled makes room for one more, and the oldest is settled last of its block.
fn sliding(ledger: &mut Ledger) {
    for offset in 0..OPEN {
        ledger.open(SourceOffset(offset), Duration::ZERO);
    }
    for block in 0..RECEIPTS / OPEN {
        let first = block * OPEN;
        for step in 1..=OPEN {
            ledger.settle(SourceOffset(black_box(first + step * STRIDE % OPEN)));
            ledger.open(
                SourceOffset(black_box(first + OPEN + step - 1)),
                Duration::ZERO,
            );
        }
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    let mut group = criterion.benchmark_group("ledger");
    group.throughput(Throughput::Elements(RECEIPTS.unsigned_abs()));
    let ways: [(&str, Way); 3] = [
        ("open and settle in order", in_order),
        ("1000 open, settled out of order", out_of_order),
        ("1000 always open, settled out of order", sliding),
    ];
    for (name, way) in ways {
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(|| Ledger::new(None), way, BatchSize::PerIteration);
        });
    }
    group.finish();
    criterion.final_summary();
}
