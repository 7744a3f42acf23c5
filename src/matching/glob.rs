//! Patterns of event types: `job.failed` is itself, `*` stands for any run of characters, dots and none included.
//!
//! Keeps the promise that a pattern costs an event no more than its length: matching never backtracks, so no pattern
//! a customer can write makes the router slow. A checked pattern cannot fail.

/// The longest pattern, in characters.
pub const MAX_PATTERN_CHARACTERS: usize = 256;

/// Why a pattern is refused. The text is meant for whoever wrote the pattern.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing is written: it would match no event at all.
    #[error(
        "an event type is empty; write a type such as `job.failed`, a pattern such as `job.*`, or `*` for all"
    )]
    Empty,
    /// Longer than [`MAX_PATTERN_CHARACTERS`].
    #[error(
        "an event type has {characters} characters; {MAX_PATTERN_CHARACTERS} are allowed, shorten it or use `*` for a part"
    )]
    TooLong {
        /// How many characters it has.
        characters: usize,
    },
    /// A line break, a tab, a NUL or another control character.
    #[error(
        "event type {pattern:?} has the control character {character:?} at position {position}; remove it"
    )]
    ControlCharacter {
        /// The pattern as given.
        pattern: String,
        /// The character.
        character: char,
        /// Its place, in characters, the first being 1.
        position: usize,
    },
    /// Space at an end, which nobody sees and no event has.
    #[error("event type {pattern:?} begins or ends with a space; remove it")]
    SurroundingSpace {
        /// The pattern as given.
        pattern: String,
    },
}

/// Checks one item of a webhook's `event_types`.
///
/// # Errors
/// [`PatternError`] when the pattern is empty, too long, has a control character or space at an end.
pub fn check_pattern(pattern: &str) -> Result<(), PatternError> {
    if pattern.is_empty() {
        return Err(PatternError::Empty);
    }
    let characters = pattern.chars().count();
    if characters > MAX_PATTERN_CHARACTERS {
        return Err(PatternError::TooLong { characters });
    }
    if let Some((place, character)) = pattern
        .chars()
        .enumerate()
        .find(|(_, character)| character.is_control())
    {
        return Err(PatternError::ControlCharacter {
            pattern: pattern.to_owned(),
            character,
            position: place + 1,
        });
    }
    if pattern.trim() != pattern {
        return Err(PatternError::SurroundingSpace {
            pattern: pattern.to_owned(),
        });
    }
    Ok(())
}

/// A pattern made ready to match. Case counts; only `*` is special.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Glob {
    prefix: String,
    /// What must follow in this order, and what must be the end; `None` when the pattern has no `*`.
    rest: Option<(Vec<String>, String)>,
}

impl Glob {
    /// Reads a pattern. Any text is one; [`check_pattern`] says whether it is a sensible one.
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        let mut pieces = pattern.split('*').map(str::to_owned);
        let prefix = pieces.next().unwrap_or_default();
        let mut pieces: Vec<String> = pieces.collect();
        let rest = pieces.pop().map(|suffix| {
            pieces.retain(|piece| !piece.is_empty());
            (pieces, suffix)
        });
        Self { prefix, rest }
    }

    /// Whether the pattern has no `*`, so that it matches exactly one type.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        self.rest.is_none()
    }

    /// Whether the pattern matches every type (`*`).
    #[must_use]
    pub fn is_everything(&self) -> bool {
        let ends = self
            .rest
            .as_ref()
            .is_some_and(|(pieces, suffix)| pieces.is_empty() && suffix.is_empty());
        self.prefix.is_empty() && ends
    }

    /// What a matching type begins with: everything before the first `*`.
    #[must_use]
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// What a matching type ends with: everything after the last `*`; the whole pattern when there is none.
    #[must_use]
    pub fn suffix(&self) -> &str {
        self.rest
            .as_ref()
            .map_or(&self.prefix, |(_, suffix)| suffix)
    }

    /// Whether the pattern matches this type.
    #[must_use]
    pub fn matches(&self, event_type: &str) -> bool {
        let Some((pieces, suffix)) = &self.rest else {
            return self.prefix == event_type;
        };
        let middle = event_type
            .strip_prefix(self.prefix.as_str())
            .and_then(|rest| rest.strip_suffix(suffix.as_str()));
        // The leftmost place for each piece leaves the most room for those after it, so nothing is ever tried twice.
        middle.is_some_and(|middle| {
            pieces
                .iter()
                .try_fold(middle, |left, piece| {
                    left.split_once(piece.as_str()).map(|(_, after)| after)
                })
                .is_some()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn matches(pattern: &str, event_type: &str) -> bool {
        Glob::new(pattern).matches(event_type)
    }

    #[test]
    fn an_exact_type_matches_only_itself() {
        assert!(matches("job.failed", "job.failed"));
        assert!(!matches("job.failed", "job.failed.hard"));
        assert!(!matches("job.failed", "job.faile"));
        assert!(!matches("job.failed", "Job.failed"));
    }

    #[test]
    fn a_star_stands_for_any_run_of_characters_with_its_dots() {
        assert!(matches("*", ""));
        assert!(matches("*", "job.failed"));
        assert!(matches("job.*", "job.step.failed"));
        assert!(matches("job.*", "job."));
        assert!(!matches("job.*", "job"));
        assert!(!matches("job.*", "jobs.failed"));
        assert!(matches("*.failed", "job.failed"));
        assert!(matches("*.*ed", "device.status_changed"));
        assert!(matches("a**b", "ab"));
    }

    #[test]
    fn a_prefix_and_a_suffix_do_not_share_characters() {
        assert!(!matches("aba*aba", "aba"));
        assert!(!matches("aba*aba", "ababa"));
        assert!(matches("aba*aba", "abaaba"));
    }

    #[test]
    fn no_other_character_is_special() {
        assert!(!matches("job.?", "job.x"));
        assert!(matches("job.[ab]", "job.[ab]"));
    }

    #[test]
    fn a_pattern_made_to_backtrack_costs_no_more_than_its_length() {
        let pattern = format!("{}b", "a*".repeat(10_000));
        assert!(!matches(&pattern, &"a".repeat(100_000)));
    }

    #[test]
    fn every_bad_pattern_gets_its_message() {
        assert!(
            check_pattern("")
                .unwrap_err()
                .to_string()
                .contains("`*` for all")
        );
        let long = check_pattern(&"é".repeat(257)).unwrap_err();
        assert_eq!(long, PatternError::TooLong { characters: 257 });
        assert!(long.to_string().contains("257 characters; 256 are allowed"));
        let control = check_pattern("job.\n*").unwrap_err().to_string();
        assert!(control.contains("'\\n' at position 5"), "{control}");
        assert!(
            check_pattern(" job.*")
                .unwrap_err()
                .to_string()
                .contains("begins or ends with a space")
        );
    }

    #[test]
    fn good_patterns_are_taken() {
        for pattern in [
            "*",
            "job.*",
            "task_completed",
            "config.backup_created",
            &"é".repeat(256),
        ] {
            assert_eq!(check_pattern(pattern), Ok(()), "{pattern}");
        }
    }

    /// The textbook definition, which backtracks.
    fn naive(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.split_first(), text.split_first()) {
            (None, None) => true,
            (Some((b'*', rest)), _) => {
                naive(rest, text) || text.split_first().is_some_and(|(_, t)| naive(pattern, t))
            }
            (Some((p, rest)), Some((t, text))) => p == t && naive(rest, text),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matching_equals_the_textbook_definition(pattern in "[ab.*]{0,8}", text in "[ab.]{0,10}") {
            prop_assert_eq!(matches(&pattern, &text), naive(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
