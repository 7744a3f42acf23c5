//! The table at the demo's end.

use comfy_table::{Cell, CellAlignment, Row, Table, presets};

use super::books::{Counts, Tally};

/// A row's name, and its figure in a column.
type Measure = (&'static str, fn(&Counts) -> usize);

const ROWS: [Measure; 6] = [
    ("wanted", |counts| counts.wanted),
    ("delivered", |counts| counts.delivered),
    ("retried", |counts| counts.retried),
    ("dead-lettered", |counts| counts.dead_lettered),
    ("replayed", |counts| counts.replayed),
    ("lost", |counts| counts.lost),
];
/// Shown only when there are any.
const RARE_ROWS: [Measure; 3] = [
    ("waiting", |counts| counts.waiting),
    ("repeated", |counts| counts.repeated),
    ("others", |counts| counts.others),
];

/// One column for all and one a webhook; the first row counts events, the others deliveries.
pub(super) fn table(tally: &Tally) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let names = tally.webhooks.iter().map(|(id, _)| id.as_str());
    table.set_header(row("", ["all"].into_iter().chain(names)));
    let blanks = tally.webhooks.iter().map(|_| String::new());
    table.add_row(row(
        "produced",
        [tally.events.to_string()].into_iter().chain(blanks),
    ));
    let rare = RARE_ROWS
        .iter()
        .filter(|(_, figure)| figure(&tally.all) > 0);
    for (name, figure) in ROWS.iter().chain(rare) {
        let figures = [&tally.all]
            .into_iter()
            .chain(tally.webhooks.iter().map(|(_, counts)| counts))
            .map(|counts| figure(counts).to_string());
        table.add_row(row(name, figures));
    }
    table
}

fn row<T: ToString>(name: &str, cells: impl Iterator<Item = T>) -> Row {
    let mut row = Row::new();
    row.add_cell(Cell::new(name));
    for cell in cells {
        row.add_cell(Cell::new(cell).set_alignment(CellAlignment::Right));
    }
    row
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::subscription::WebhookId;

    #[test]
    fn every_figure_has_its_row_and_rare_ones_only_when_there_are_any() {
        let mut tally = Tally {
            events: 7,
            all: Counts {
                wanted: 9,
                lost: 1,
                ..Counts::default()
            },
            webhooks: vec![(WebhookId::new("wh_a").unwrap(), Counts::default())],
            changed: Vec::new(),
        };
        let text = table(&tally).to_string();
        let figure = |text: &str, name: &str| {
            let line = text.lines().find(|line| line.trim().starts_with(name))?;
            line.split_whitespace().nth(1)?.parse::<usize>().ok()
        };
        assert_eq!(figure(&text, "produced"), Some(7));
        assert_eq!(figure(&text, "wanted"), Some(9));
        assert_eq!(figure(&text, "lost"), Some(1));
        assert_eq!(figure(&text, "waiting"), None);
        tally.all.waiting = 3;
        assert_eq!(figure(&table(&tally).to_string(), "waiting"), Some(3));
    }
}
