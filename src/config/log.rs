//! What is logged: one level for everything, and others for single stages (`level = "info,outbound=debug"`).
//!
//! The words are those of the folders and of the sections here; which modules a stage's word stands for is said in one place.

use std::fmt;

use serde::{Serialize, Serializer};

use super::read::{Reader, nearest};

/// How log lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// The least important lines that are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum Level {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl Level {
    /// Every level, the tersest first.
    pub const ALL: [Self; 5] = [
        Self::Error,
        Self::Warn,
        Self::Info,
        Self::Debug,
        Self::Trace,
    ];

    /// The word in the configuration, which is tracing's too.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }

    fn parse(word: &str) -> Result<Self, String> {
        let found = Self::ALL.into_iter().find(|level| level.as_str() == word);
        found.ok_or_else(|| {
            let words = Self::ALL.map(Self::as_str);
            format!("must be one of {}; it is {word:?}", words.join(", "))
        })
    }
}

/// A part of the program with a level of its own.
#[derive(Debug, PartialEq, Eq)]
pub struct Stage {
    /// The word in the configuration.
    pub word: &'static str,
    /// The modules whose lines are the stage's, as tracing names them; each stands for those below it too.
    pub modules: &'static [&'static str],
}

/// In the order of the flow; what the pipeline does for a stage is the stage's.
const STAGES: [Stage; 7] = [
    Stage {
        word: "kafka",
        modules: &["postrider::kafka", "librdkafka", "rdkafka"],
    },
    Stage {
        word: "intake",
        modules: &["postrider::intake", "postrider::pipeline::route"],
    },
    Stage {
        word: "matching",
        modules: &[
            "postrider::matching",
            "postrider::pipeline::catalog_topic",
            "postrider::pipeline::followers",
        ],
    },
    Stage {
        word: "outbound",
        modules: &[
            "postrider::outbound",
            "postrider::pipeline::deliver",
            // The line of each attempt.
            "postrider::pipeline::conclude",
            "postrider::pipeline::conditions",
            "postrider::pipeline::alerts",
        ],
    },
    Stage {
        word: "retry",
        modules: &[
            "postrider::retry",
            "postrider::pipeline::release",
            "postrider::pipeline::hold",
            "postrider::pipeline::replaying",
        ],
    },
    Stage {
        word: "history",
        modules: &["postrider::history", "postrider::pipeline::history"],
    },
    Stage {
        word: "web",
        modules: &[
            "postrider::web",
            "postrider::app::api",
            "postrider::app::past",
            "postrider::pipeline::changes",
            "postrider::pipeline::admission",
        ],
    },
];

/// The level of everything and of single stages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Levels {
    /// Of everything that is not named below.
    pub all: Level,
    /// Of single stages, in the order of the flow.
    pub stages: Vec<(&'static Stage, Level)>,
}

impl Levels {
    /// Reads `info`, `info,outbound=debug` or `outbound=debug` (then the rest is at `info`).
    fn parse(text: &str) -> Result<Self, String> {
        let mut all = None;
        let mut stages: Vec<(&'static Stage, Level)> = Vec::new();
        for part in text.split(',').map(str::trim) {
            let Some((word, level)) = part.split_once('=') else {
                if all.replace(Level::parse(part)?).is_some() {
                    return Err(format!(
                        "has two levels for everything; write one, and stages as outbound=debug: {text:?}"
                    ));
                }
                continue;
            };
            let word = word.trim();
            let Some(stage) = STAGES.iter().find(|stage| stage.word == word) else {
                let words = STAGES.iter().map(|stage| stage.word);
                return Err(format!("names {word:?}: {}", nearest("stage", word, words)));
            };
            let level = Level::parse(level.trim()).map_err(|fault| format!("of {word} {fault}"))?;
            if stages.iter().any(|(other, _)| other.word == word) {
                return Err(format!("names {word} twice; write it once"));
            }
            stages.push((stage, level));
        }
        stages.sort_by_key(|(stage, _)| STAGES.iter().position(|other| other == *stage));
        Ok(Self {
            all: all.unwrap_or(Level::Info),
            stages,
        })
    }

    /// The directives of tracing's `EnvFilter`.
    pub fn directives(&self) -> String {
        let mut text = self.all.as_str().to_owned();
        // rustls' verifier logs each bad certificate as an error of its own; the attempt's line says it already.
        // librdkafka tells of each broken connection, which the readers and the producer do too.
        text.push_str(",rustls_platform_verifier=off,librdkafka=error");
        for (stage, level) in &self.stages {
            for module in stage.modules {
                text.push_str(&format!(",{module}={}", level.as_str()));
            }
        }
        text
    }
}

impl fmt::Display for Levels {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.all.as_str())?;
        self.stages
            .iter()
            .try_for_each(|(stage, level)| write!(formatter, ",{}={}", stage.word, level.as_str()))
    }
}

impl Serialize for Levels {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Log {
    /// How lines are written.
    pub format: LogFormat,
    /// The least important ones that are.
    pub level: Levels,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: LogFormat::Text,
            level: Levels {
                all: Level::Info,
                stages: Vec::new(),
            },
        }
    }
}

impl Log {
    pub(super) fn read(reader: &mut Reader<'_>) -> Self {
        let default = Self::default();
        let mut section = reader.section("log");
        let log = Self {
            format: section.word(
                "format",
                default.format,
                &[("text", LogFormat::Text), ("json", LogFormat::Json)],
            ),
            level: section.parsed("level", default.level, Levels::parse),
        };
        section.finish();
        log
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_that_of_everything_or_of_single_stages() {
        for text in ["info", "warn,outbound=debug", "error,kafka=trace,web=warn"] {
            assert_eq!(Levels::parse(text).unwrap().to_string(), text);
        }
        let spaced = Levels::parse(" web = warn , debug ,intake=info").unwrap();
        assert_eq!(spaced.to_string(), "debug,intake=info,web=warn");
        let alone = Levels::parse("outbound=debug").unwrap();
        assert_eq!(alone.to_string(), "info,outbound=debug");
    }

    #[test]
    fn an_unknown_stage_is_refused_with_the_nearest() {
        let fault = Levels::parse("info,outbond=debug").unwrap_err();
        assert_eq!(
            fault,
            "names \"outbond\": there is no such stage; did you mean `outbound`?"
        );
        let fault = Levels::parse("info,xyz=debug").unwrap_err();
        assert!(
            fault.contains("known are kafka, intake, matching"),
            "{fault}"
        );
    }

    #[test]
    fn a_level_that_is_none_is_refused_with_those_that_are() {
        for (text, part) in [
            (
                "loud",
                "must be one of error, warn, info, debug, trace; it is \"loud\"",
            ),
            ("", "it is \"\""),
            ("info,", "it is \"\""),
            ("outbound=", "of outbound must be one of"),
            ("INFO", "it is \"INFO\""),
            ("info,debug", "two levels for everything"),
            ("web=info,web=debug", "names web twice"),
            ("postrider::web=info", "no such stage"),
        ] {
            let fault = Levels::parse(text).unwrap_err();
            assert!(fault.contains(part), "{text}: {fault}");
        }
    }

    #[test]
    fn a_stages_level_goes_before_that_of_everything_and_of_librdkafka() {
        let directives = Levels::parse("warn,kafka=debug").unwrap().directives();
        let at = |part: &str| directives.find(part).unwrap();
        assert!(directives.starts_with("warn,"));
        assert!(
            at("librdkafka=error") < at("librdkafka=debug"),
            "{directives}"
        );
    }

    #[test]
    fn every_module_that_a_stage_names_is_there_and_every_stage_has_its_folder() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        let mut seen = 0;
        for stage in &STAGES {
            assert!(root.join(stage.word).is_dir(), "{}", stage.word);
            for module in stage.modules {
                let Some(path) = module.strip_prefix("postrider::") else {
                    continue;
                };
                let path = root.join(path.replace("::", "/"));
                assert!(
                    path.is_dir() || path.with_extension("rs").is_file(),
                    "{module}"
                );
                seen += 1;
            }
        }
        assert_eq!(seen, 22);
    }
}
