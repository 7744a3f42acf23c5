//! A page of dead letters, found while the whole topic goes by: sorted by time of death, and never larger than the page (promise 6).

use std::collections::BTreeMap;

use crate::web::api::paging::{From, Slice};
use crate::web::api::past::{DeadLetter, LetterPlace, Letters};

/// The page that is asked for, while letters come in whatever order. It holds no more than the page (promise 6).
pub(super) struct Window {
    from: From<LetterPlace>,
    size: usize,
    kept: BTreeMap<LetterPlace, DeadLetter>,
    oldest: Option<LetterPlace>,
    newest: Option<LetterPlace>,
}

impl Window {
    pub(super) fn new(from: From<LetterPlace>, size: usize) -> Self {
        Self {
            from,
            size,
            kept: BTreeMap::new(),
            oldest: None,
            newest: None,
        }
    }

    pub(super) fn offer(&mut self, place: LetterPlace, letter: impl FnOnce() -> DeadLetter) {
        self.oldest = Some(self.oldest.map_or(place, |oldest| oldest.min(place)));
        self.newest = Some(self.newest.map_or(place, |newest| newest.max(place)));
        let is_full = self.kept.len() >= self.size;
        let first = self.kept.first_key_value().map(|(key, _)| *key);
        let last = self.kept.last_key_value().map(|(key, _)| *key);
        match self.from {
            From::After(edge) if place >= edge => {}
            From::Before(edge) if place <= edge => {}
            From::Before(_) => {
                if !is_full || last.is_some_and(|last| place < last) {
                    self.kept.insert(place, letter());
                }
                if self.kept.len() > self.size {
                    self.kept.pop_last();
                }
            }
            From::Start | From::After(_) => {
                if !is_full || first.is_some_and(|first| place > first) {
                    self.kept.insert(place, letter());
                }
                if self.kept.len() > self.size {
                    self.kept.pop_first();
                }
            }
        }
    }

    pub(super) fn into_letters(self, total: u64, by_reason: BTreeMap<String, u64>) -> Letters {
        let first = self.kept.first_key_value().map(|(key, _)| *key);
        let last = self.kept.last_key_value().map(|(key, _)| *key);
        Letters {
            slice: Slice {
                has_after: first.is_some() && self.oldest < first,
                has_before: last.is_some() && self.newest > last,
                rows: self.kept.into_iter().rev().collect(),
            },
            total,
            by_reason,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::time;
    use super::*;

    fn page(from: From<LetterPlace>, places: &[i64]) -> (Vec<i64>, bool, bool) {
        let mut window = Window::new(from, 2);
        for place in places {
            window.offer((*place, 0, 0), || DeadLetter {
                place: String::new(),
                topic: String::new(),
                died_at: time(*place),
                reason: String::new(),
                webhook_id: None,
                delivery_id: None,
                event_type: None,
                attempts: None,
                last_status: None,
                replays: 0,
                fate: String::new(),
                job: None,
                replayable: true,
                note: None,
                error_message: String::new(),
            });
        }
        let letters = window.into_letters(0, BTreeMap::new());
        let shown = letters
            .slice
            .rows
            .iter()
            .map(|(place, _)| place.0)
            .collect();
        (shown, letters.slice.has_after, letters.slice.has_before)
    }

    #[test]
    fn pages_go_to_the_oldest_and_back_whatever_order_letters_come_in() {
        for places in [[1, 2, 3, 4, 5], [5, 4, 3, 2, 1], [3, 5, 1, 4, 2]] {
            let place = |time| (time, 0, 0);
            assert_eq!(page(From::Start, &places), (vec![5, 4], true, false));
            let second = page(From::After(place(4)), &places);
            assert_eq!(second, (vec![3, 2], true, true));
            let last = page(From::After(place(2)), &places);
            assert_eq!(last, (vec![1], false, true));
            let back = page(From::Before(place(1)), &places);
            assert_eq!(back, (vec![3, 2], true, true));
            let first = page(From::Before(place(3)), &places);
            assert_eq!(first, (vec![5, 4], true, false));
        }
        assert_eq!(page(From::Start, &[]), (vec![], false, false));
    }
}
