//! What is sent and who wants it: events and webhooks of a run, both from the seed alone, so that any of them can be made
//! again from its number.

use serde_json::{Value, json};

/// The source topics of a run.
pub const SOURCES: [&str; 2] = ["events.job", "events.device"];

/// A number that only depends on what goes in (splitmix64).
pub fn mixed(seed: u64, number: u64) -> u64 {
    let mut value = seed.wrapping_add(number.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// How much a run produces.
#[derive(Clone, Copy, Debug)]
pub struct Load {
    pub events: u32,
    pub per_second: f64,
}

impl Load {
    /// Events before this one are for the saturated webhook.
    fn saturating(self) -> u32 {
        self.events / 5 * 2
    }
}

/// How the receiver of a webhook behaves when nobody disturbs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nature {
    Good,
    /// Answers after so many milliseconds.
    Slow(u64),
    /// Answers 500 to the first attempt of every tenth event.
    Fails,
    /// 500, always.
    Dead,
    /// 404, always.
    Refuses,
}

/// A webhook of the run.
#[derive(Clone, Debug)]
pub struct Hook {
    pub id: &'static str,
    pub types: &'static [&'static str],
    pub customer: Option<u64>,
    /// The least `rank` that it wants, as a filter.
    pub rank: Option<u64>,
    pub nature: Nature,
    /// Requests in a second, burst.
    pub limit: Option<(u32, u32)>,
    /// It wants events of the first two fifths of the run only, and its limit is nine tenths of what comes then: so its bucket is empty
    /// all the while, and one that begins full is seen.
    pub saturated: bool,
    pub max_retries: u32,
    /// Its receiver is disturbed by the schedule.
    pub disturbed: bool,
}

const fn hook(id: &'static str, types: &'static [&'static str], customer: Option<u64>) -> Hook {
    Hook {
        id,
        types,
        customer,
        rank: None,
        nature: Nature::Good,
        limit: None,
        saturated: false,
        max_retries: 20,
        disturbed: false,
    }
}

const fn natured(id: &'static str, types: &'static [&'static str], nature: Nature) -> Hook {
    Hook {
        nature,
        ..hook(id, types, None)
    }
}

const fn disturbed(id: &'static str, types: &'static [&'static str]) -> Hook {
    Hook {
        disturbed: true,
        ..hook(id, types, None)
    }
}

/// The one that is paused and resumed.
pub const PAUSED: &str = "wh_paused";
/// The one that is deleted.
pub const DELETED: &str = "wh_deleted";

/// All webhooks. The position of one is its number everywhere in the harness, at most 63.
pub const HOOKS: [Hook; 25] = [
    hook("wh_jobs_one", &["job.completed"], Some(1)),
    hook("wh_jobs_two", &["job.completed"], Some(2)),
    hook("wh_devices_one", &["device.updated"], Some(1)),
    hook("wh_devices_two", &["device.updated"], Some(2)),
    hook("wh_changed", &["config.changed"], None),
    hook("wh_failed_one", &["job.f*"], Some(1)),
    hook("wh_failed_two", &["job.failed"], Some(2)),
    hook("wh_compliance", &["compliance.*"], None),
    hook("wh_created_one", &["device.c*", "device.deleted"], Some(1)),
    Hook {
        rank: Some(98),
        ..hook("wh_top", &["*"], None)
    },
    Hook {
        rank: Some(95),
        ..hook("wh_top_one", &["job.*"], Some(1))
    },
    natured("wh_slow", &["device.created"], Nature::Slow(150)),
    natured("wh_slower", &["device.deleted"], Nature::Slow(400)),
    natured("wh_fails", &["config.deployed"], Nature::Fails),
    Hook {
        customer: Some(2),
        ..natured("wh_fails_two", &["job.failed"], Nature::Fails)
    },
    Hook {
        limit: Some((10, 10)),
        ..hook("wh_limited", &["config.backup_created"], None)
    },
    Hook {
        limit: Some((20, 5)),
        ..hook("wh_limited_one", &["config.backup_created"], Some(1))
    },
    Hook {
        max_retries: 1,
        ..natured("wh_dead", &["test.dead"], Nature::Dead)
    },
    natured("wh_refuses", &["test.refused"], Nature::Refuses),
    disturbed("wh_disturbed_a", &["device.status_changed"]),
    disturbed("wh_disturbed_b", &["compliance.check_completed"]),
    disturbed("wh_disturbed_c", &["job.created"]),
    Hook {
        saturated: true,
        ..hook("wh_saturated", &["device.status_changed"], None)
    },
    hook(PAUSED, &["job.created"], None),
    hook(DELETED, &["job.started"], None),
];

/// The number of a webhook, by its id.
pub fn number_of_id(id: &str) -> Option<usize> {
    HOOKS.iter().position(|hook| hook.id == id)
}

impl Hook {
    /// Requests in a second and burst, in a run of this load.
    pub fn limit_at(&self, load: Load) -> Option<(u32, u32)> {
        if !self.saturated {
            return self.limit;
        }
        let share: u64 = TYPES
            .iter()
            .filter(|(name, _)| self.types.contains(name))
            .map(|(_, share)| share)
            .sum();
        let comes = load.per_second * share as f64 / 1000.0;
        Some(((0.9 * comes).max(1.0) as u32, 40))
    }

    /// The webhook as the catalog wants it, beside id and URL.
    pub fn fields(&self, load: Load) -> Value {
        let mut fields = json!({
            "event_types": self.types, "customer": self.customer, "retry_backoff": 1, "max_retries": self.max_retries,
            "timeout_seconds": if self.disturbed { 1.0 } else { 5.0 }, "secret": "whsec_Y2hhb3MgY2hhb3MgY2hhb3MgY2hhb3M=",
        });
        if let Some(rank) = self.rank {
            fields["filter"] = json!({"rank": {"$gte": rank}});
        }
        if self.saturated {
            fields["filter"] = json!({"n": {"$lt": load.saturating()}});
        }
        if let Some((requests, burst)) = self.limit_at(load) {
            fields["rate_limit"] = json!({"requests": requests, "per_seconds": 1, "burst": burst});
            fields["max_concurrency"] = json!(4);
        }
        fields
    }

    fn wants(&self, event: &Event, load: Load) -> bool {
        let typed = self
            .types
            .iter()
            .any(|wanted| match wanted.strip_suffix('*') {
                Some(start) => event.event_type.starts_with(start),
                None => event.event_type == *wanted,
            });
        typed
            && self
                .customer
                .is_none_or(|customer| customer == event.customer)
            && self.rank.is_none_or(|rank| event.rank >= rank)
            && (!self.saturated || event.number < load.saturating())
    }
}

/// Types and their share in a thousand. The rare ones are for receivers that take little.
const TYPES: [(&str, u64); 13] = [
    ("job.completed", 400),
    ("device.updated", 300),
    ("config.changed", 150),
    ("job.failed", 40),
    ("device.created", 20),
    ("device.deleted", 5),
    ("config.deployed", 30),
    ("config.backup_created", 4),
    ("device.status_changed", 15),
    ("compliance.check_completed", 10),
    ("job.created", 15),
    ("job.started", 6),
    ("test.refused", 5),
];

/// Event `n` of a run.
#[derive(Clone, Debug)]
pub struct Event {
    pub number: u32,
    pub event_type: &'static str,
    pub customer: u64,
    pub rank: u64,
    pad: usize,
}

impl Event {
    /// Every 1,000th of the first 8,000 is for the dead endpoint.
    pub fn new(seed: u64, number: u32) -> Self {
        let chance = mixed(seed, u64::from(number));
        let mut at = chance % 1000;
        let mut event_type = TYPES[0].0;
        for (name, share) in TYPES {
            if at < share {
                event_type = name;
                break;
            }
            at -= share;
        }
        if number < 8000 && number % 1000 == 7 {
            event_type = "test.dead";
        }
        let pad = if event_type == "test.refused" {
            4000
        } else {
            (chance >> 40) as usize % 100
        };
        Self {
            number,
            event_type,
            customer: 1 + (chance >> 20) % 2,
            rank: (chance >> 24) % 100,
            pad,
        }
    }

    /// Which of [`SOURCES`] it is produced to.
    pub fn source(&self) -> usize {
        usize::from(!self.event_type.starts_with("job."))
    }

    /// The bytes that its receivers must get.
    pub fn body(&self) -> Vec<u8> {
        format!(
            r#"{{"n":{},"event_type":"{}","customer":{},"rank":{},"pad":"{:x<pad$}"}}"#,
            self.number,
            self.event_type,
            self.customer,
            self.rank,
            "",
            pad = self.pad
        )
        .into_bytes()
    }

    /// The number of an event, from its body.
    pub fn number_in(body: &[u8]) -> Option<u32> {
        let digits = body.strip_prefix(br#"{"n":"#)?;
        let end = digits.iter().position(|byte| !byte.is_ascii_digit())?;
        std::str::from_utf8(&digits[..end]).ok()?.parse().ok()
    }

    /// The webhooks that want it, as bits by number.
    pub fn wanted_by(&self, load: Load) -> u64 {
        HOOKS
            .iter()
            .enumerate()
            .filter(|(_, hook)| hook.wants(self, load))
            .fold(0, |bits, (number, _)| bits | 1 << number)
    }
}
