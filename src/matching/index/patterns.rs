//! Which of many type patterns match one event type, without trying them all.
//!
//! An exact type is found by its name. A glob is filed under the text it begins with, or failing that ends with, so an
//! event meets only globs that share it. Globs with neither (`*a*`) are tried one by one.

use std::collections::HashMap;

use crate::matching::glob::Glob;

/// The distinct patterns of an index, numbered as they were added.
#[derive(Debug, Default)]
pub(super) struct Patterns {
    /// The number of `*`, once it is there.
    everything: Option<usize>,
    exact: HashMap<String, usize>,
    by_prefix: Anchored,
    by_suffix: Anchored,
    loose: Vec<(Glob, usize)>,
    /// Only needed while building: which glob has which number.
    numbers: HashMap<String, usize>,
}

/// Globs under a text that a matching type must have at one end.
#[derive(Debug, Default)]
struct Anchored {
    globs: HashMap<String, Vec<(Glob, usize)>>,
    /// The lengths of those texts in bytes, each once.
    lengths: Vec<usize>,
}

impl Patterns {
    /// The number of a pattern, a new one if it is new.
    pub(super) fn number(&mut self, pattern: &str) -> usize {
        if let Some(number) = self.numbers.get(pattern) {
            return *number;
        }
        let number = self.numbers.len();
        self.numbers.insert(pattern.to_owned(), number);
        let glob = Glob::new(pattern);
        if glob.is_everything() && self.everything.is_none() {
            self.everything = Some(number);
        } else if glob.is_exact() {
            self.exact.insert(pattern.to_owned(), number);
        } else if !glob.prefix().is_empty() {
            self.by_prefix.add(glob.prefix().to_owned(), glob, number);
        } else if !glob.suffix().is_empty() {
            self.by_suffix.add(glob.suffix().to_owned(), glob, number);
        } else {
            self.loose.push((glob, number));
        }
        number
    }

    /// Gives the number of every pattern that matches the type, each once.
    pub(super) fn matching(&self, event_type: &str, mut give: impl FnMut(usize)) {
        self.everything
            .into_iter()
            .chain(self.exact.get(event_type).copied())
            .for_each(&mut give);
        for length in &self.by_prefix.lengths {
            self.by_prefix
                .under(event_type.get(..*length), event_type, &mut give);
        }
        for length in &self.by_suffix.lengths {
            let end = event_type
                .len()
                .checked_sub(*length)
                .and_then(|start| event_type.get(start..));
            self.by_suffix.under(end, event_type, &mut give);
        }
        self.loose
            .iter()
            .filter(|(glob, _)| glob.matches(event_type))
            .for_each(|(_, number)| give(*number));
    }
}

impl Anchored {
    fn add(&mut self, anchor: String, glob: Glob, number: usize) {
        if !self.lengths.contains(&anchor.len()) {
            self.lengths.push(anchor.len());
        }
        self.globs.entry(anchor).or_default().push((glob, number));
    }

    fn under(&self, anchor: Option<&str>, event_type: &str, give: &mut impl FnMut(usize)) {
        let globs = anchor
            .and_then(|anchor| self.globs.get(anchor))
            .map(Vec::as_slice)
            .unwrap_or_default();
        globs
            .iter()
            .filter(|(glob, _)| glob.matches(event_type))
            .for_each(|(_, number)| give(*number));
    }
}
