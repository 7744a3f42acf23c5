//! The figures of all rounds: median, range, and the ratio to the floor of the same run.

use std::fmt;

/// Draining a full topic.
pub struct Drain {
    pub per_second: f64,
    /// Processor time of a delivery, user and system, microseconds.
    pub processor_us: f64,
    pub peak_mebibytes: f64,
    /// Events that arrived more than once.
    pub repeated: u64,
}

impl fmt::Display for Drain {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{:.0} deliveries/s, {:.1} µs a delivery, peak {:.0} MiB, {} repeated",
            self.per_second, self.processor_us, self.peak_mebibytes, self.repeated
        )
    }
}

/// An even pace. Times are from the producer's enqueue to the arrival at the receiver.
pub struct Latency {
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub worst_ms: f64,
    pub processor_us: f64,
}

impl fmt::Display for Latency {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "p50 {:.1} ms, p99 {:.1} ms, worst {:.1} ms, {:.0} µs a delivery",
            self.p50_ms, self.p99_ms, self.worst_ms, self.processor_us
        )
    }
}

struct Row {
    name: &'static str,
    drains: Vec<Drain>,
    latencies: Vec<Latency>,
}

impl Row {
    fn processor_us(&self) -> f64 {
        Spread::of(self.drains.iter().map(|drain| drain.processor_us)).median
    }
}

pub struct Report(Vec<Row>);

impl Report {
    pub fn new(names: impl Iterator<Item = &'static str>) -> Self {
        let row = |name| Row {
            name,
            drains: Vec::new(),
            latencies: Vec::new(),
        };
        Self(names.map(row).collect())
    }

    pub fn add_drain(&mut self, index: usize, drain: Drain) {
        self.0[index].drains.push(drain);
    }

    pub fn add_latency(&mut self, index: usize, latency: Latency) {
        self.0[index].latencies.push(latency);
    }

    pub fn print(&self, count: u64) {
        if self.0.is_empty() {
            return;
        }
        let floor = |threads: &str| {
            let row = self.0.iter().find(|row| row.name.ends_with(threads));
            row.map(Row::processor_us)
        };
        let (one, two) = (floor("one thread"), floor("two threads"));
        println!(
            "\ndraining {count} events of {} bytes: median (least to most)",
            super::events::EVENT_BYTES
        );
        println!(
            "{:<46}{:>26}{:>22}{:>14}{:>10}{:>10}",
            "", "deliveries/s", "CPU µs a delivery", "peak MiB", "÷ floor 1", "÷ floor 2"
        );
        for row in self.0.iter().filter(|row| !row.drains.is_empty()) {
            let ratio = |floor: Option<f64>| {
                floor.map_or(String::new(), |floor| {
                    format!("{:.2}", row.processor_us() / floor)
                })
            };
            let rates = Spread::of(row.drains.iter().map(|drain| drain.per_second));
            let times = Spread::of(row.drains.iter().map(|drain| drain.processor_us));
            let peaks = Spread::of(row.drains.iter().map(|drain| drain.peak_mebibytes));
            println!(
                "{:<46}{:>26}{:>22}{:>14.0}{:>10}{:>10}",
                row.name,
                rates.text(0),
                times.text(1),
                peaks.most,
                ratio(one),
                ratio(two)
            );
        }
        if self.0.iter().all(|row| row.latencies.is_empty()) {
            return;
        }
        println!("\nat an even pace, enqueue to arrival: median (least to most), ms");
        println!(
            "{:<46}{:>26}{:>26}{:>22}",
            "", "p50", "p99", "CPU µs a delivery"
        );
        for row in self.0.iter().filter(|row| !row.latencies.is_empty()) {
            let middle = Spread::of(row.latencies.iter().map(|latency| latency.p50_ms));
            let tail = Spread::of(row.latencies.iter().map(|latency| latency.p99_ms));
            let times = Spread::of(row.latencies.iter().map(|latency| latency.processor_us));
            println!(
                "{:<46}{:>26}{:>26}{:>22}",
                row.name,
                middle.text(1),
                tail.text(1),
                times.text(0)
            );
        }
    }
}

struct Spread {
    least: f64,
    median: f64,
    most: f64,
}

impl Spread {
    fn of(values: impl Iterator<Item = f64>) -> Self {
        let mut sorted: Vec<f64> = values.collect();
        sorted.sort_by(f64::total_cmp);
        let at = |index: usize| sorted.get(index).copied().unwrap_or(f64::NAN);
        Self {
            least: at(0),
            median: at(sorted.len() / 2),
            most: at(sorted.len().saturating_sub(1)),
        }
    }

    fn text(&self, digits: usize) -> String {
        let (least, median, most) = (self.least, self.median, self.most);
        if least == most {
            return format!("{median:.digits$}");
        }
        format!("{median:.digits$} ({least:.digits$}–{most:.digits$})")
    }
}
