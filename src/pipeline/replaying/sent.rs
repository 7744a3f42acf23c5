//! Letters of a job that are on their way into `dispatch`, in the order of their offsets.
//!
//! Promise 2: they may be acknowledged in any order, and the cursor stands before the first that is not.

use std::collections::VecDeque;
use std::sync::mpsc::{self, Receiver, Sender};
use std::time::Instant;

use super::{ACKNOWLEDGED_WITHIN, Error};
use crate::kafka::producer::OnWritten;
use crate::record::Source;

/// Why a letter was refused, if it was.
type Written = Result<(), String>;

/// Letters that were handed to the producer and are not behind the cursor yet.
pub(super) struct Sent {
    letters: VecDeque<Letter>,
    to_answer: Sender<(i64, Written)>,
    answer: Receiver<(i64, Written)>,
}

struct Letter {
    /// In the dead-letter topic.
    place: Source,
    written: Option<Written>,
}

impl Sent {
    pub(super) fn new() -> Self {
        let (to_answer, answer) = mpsc::channel();
        Self {
            letters: VecDeque::new(),
            to_answer,
            answer,
        }
    }

    pub(super) fn count(&self) -> usize {
        self.letters.len()
    }

    /// Adds a letter that stands in `dispatch` already.
    pub(super) fn add_written(&mut self, place: Source) {
        let written = Some(Ok(()));
        self.letters.push_back(Letter { place, written });
    }

    /// Adds a letter, for which the producer is to call what is returned.
    pub(super) fn add(&mut self, place: Source) -> OnWritten {
        let (offset, to_answer) = (place.offset, self.to_answer.clone());
        let written = None;
        self.letters.push_back(Letter { place, written });
        Box::new(move |written| {
            let written = written.map_err(|refused| refused.to_string());
            // Nobody listens any more when the job has given up.
            let _ = to_answer.send((offset, written.map(|_| ())));
        })
    }

    /// Letters that are written, before the first of which that is not known.
    pub(super) fn written(&mut self) -> usize {
        while let Ok((offset, written)) = self.answer.try_recv() {
            self.note(offset, written);
        }
        let is_there = |letter: &&Letter| matches!(letter.written, Some(Ok(())));
        self.letters.iter().take_while(is_there).count()
    }

    /// Forgets those, and gives the place of the first of the others.
    pub(super) fn forget_written(&mut self) -> (usize, Option<&Source>) {
        let written = self.written();
        self.letters.drain(..written);
        (written, self.letters.front().map(|letter| &letter.place))
    }

    /// The first letter, where it was refused, and why.
    pub(super) fn refused(&self) -> Option<(&Source, &str)> {
        let first = self.letters.front()?;
        let reason = first.written.as_ref()?.as_ref().err()?;
        Some((&first.place, reason))
    }

    /// Waits until each is written or refused.
    pub(super) fn wait(&mut self, until: Instant) -> Result<(), Error> {
        while self.letters.iter().any(|letter| letter.written.is_none()) {
            let left = until.saturating_duration_since(Instant::now());
            let (offset, written) = self.answer.recv_timeout(left).map_err(|_| {
                Error::Kafka(crate::kafka::Error::NoAnswer(format!(
                    "the broker did not acknowledge letters within {} s; they may be sent once more on resume",
                    ACKNOWLEDGED_WITHIN.as_secs()
                )))
            })?;
            self.note(offset, written);
        }
        Ok(())
    }

    fn note(&mut self, offset: i64, written: Written) {
        let place = |letter: &Letter| letter.place.offset;
        if let Ok(number) = self.letters.binary_search_by_key(&offset, place)
            && let Some(letter) = self.letters.get_mut(number)
        {
            letter.written = Some(written);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::producer::Refused;
    use crate::record::Outgoing;

    fn place(offset: i64) -> Source {
        Source {
            topic: "dead".into(),
            partition: 0,
            offset,
        }
    }

    fn refusal() -> Refused {
        Refused {
            topic: "dispatch".to_owned(),
            reason: "too large".to_owned(),
            too_large: true,
            record: Box::new(Outgoing {
                topic: "dispatch".into(),
                key: None,
                payload: None,
                headers: Vec::new(),
            }),
        }
    }

    #[test]
    fn the_cursor_stands_before_the_first_letter_that_is_not_written_whatever_comes_first() {
        let mut sent = Sent::new();
        let mut answers: Vec<OnWritten> = [3, 7, 9].map(|offset| sent.add(place(offset))).into();
        sent.add_written(place(12));
        answers.pop().unwrap()(Ok(place(100)));
        assert_eq!(sent.written(), 0);
        answers.remove(0)(Ok(place(101)));
        assert_eq!(sent.forget_written(), (1, Some(&place(7))));
        assert_eq!(sent.refused(), None);
        answers.remove(0)(Ok(place(102)));
        assert_eq!(sent.forget_written(), (3, None));
    }

    #[test]
    fn a_refused_letter_is_told_when_all_before_it_are_written_and_none_is_waited_for_in_vain() {
        let mut sent = Sent::new();
        let (first, second) = (sent.add(place(1)), sent.add(place(2)));
        second(Err(refusal()));
        assert_eq!(sent.forget_written(), (0, Some(&place(1))));
        assert_eq!(sent.refused(), None);
        assert!(sent.wait(Instant::now()).is_err());
        first(Ok(place(100)));
        assert!(sent.wait(Instant::now()).is_ok());
        assert_eq!(sent.forget_written(), (1, Some(&place(2))));
        let (refused, reason) = sent.refused().unwrap();
        assert_eq!(refused, &place(2));
        assert!(reason.contains("too large"), "{reason}");
    }
}
