//! Which fault strikes when: from the seed alone, so that a run can be repeated.

use super::events::{HOOKS, mixed};
use super::receivers::Trouble;

/// Something that goes wrong, or an operator does. How long it lasts is in [`Strike`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// SIGKILL of a router; another comes after a while.
    Kill,
    /// SIGTERM of a router; another comes.
    Terminate,
    /// SIGSTOP for longer than the session timeout, then SIGCONT.
    Freeze,
    Join,
    Leave,
    /// SIGKILL of the broker, and a restart.
    BrokerKill,
    /// Nothing passes between routers and broker.
    Stall,
    /// All connections between routers and broker are reset.
    Cut,
    /// A webhook's receiver is in trouble.
    Receiver(usize, Trouble),
    /// `max.message.bytes` of the dead-letter topic.
    SmallLetters(u32),
    /// A source topic gets one partition more.
    Partitions(usize),
    /// The routers' wall clock is so many hours off from now on.
    Clock(i64),
    Pause,
    Delete,
}

impl Fault {
    /// The row of the table.
    pub fn kind(self) -> String {
        match self {
            Self::Kill => "kill -9 of a router".into(),
            Self::Terminate => "SIGTERM of a router".into(),
            Self::Freeze => "SIGSTOP beyond the session".into(),
            Self::Join => "router joins".into(),
            Self::Leave => "router leaves".into(),
            Self::BrokerKill => "kill -9 of the broker".into(),
            Self::Stall => "network stalls".into(),
            Self::Cut => "network cut".into(),
            Self::Receiver(_, trouble) => format!("receiver: {trouble:?}"),
            Self::SmallLetters(_) => "dead-letter topic takes little".into(),
            Self::Partitions(_) => "partition added to a source".into(),
            Self::Clock(_) => "wall clock steps".into(),
            Self::Pause => "webhook paused and resumed".into(),
            Self::Delete => "webhook deleted".into(),
        }
    }
}

/// A fault at its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strike {
    /// Since the run began.
    pub at_ms: u32,
    pub fault: Fault,
    /// Until it is made good, where it is.
    pub lasts_ms: u32,
    /// For choices that can only be made when it strikes, such as which router.
    pub chance: u64,
}

/// `count` faults over `span_ms`; each kind at least once where there is room.
pub fn schedule(seed: u64, span_ms: u32, count: usize) -> Vec<Strike> {
    let mut strikes = Vec::new();
    let mut deck: Vec<Fault> = Vec::new();
    let step = span_ms / (count as u32 + 1);
    let mut hours = 0;
    for number in 0..count {
        let chance = mixed(seed ^ 0xC4A0_5C4A, number as u64);
        if deck.is_empty() {
            deck = shuffled(cards(seed, number), chance);
        }
        let mut fault = deck.pop().unwrap_or(Fault::Kill);
        if let Fault::Clock(_) = fault {
            // Steps of one hour, never more than one away.
            hours = if hours != 0 {
                0
            } else if chance >> 50 & 1 == 0 {
                1
            } else {
                -1
            };
            fault = Fault::Clock(hours);
        }
        let lasts_ms = match fault {
            Fault::Freeze => 8000 + (chance >> 8) as u32 % 2500,
            Fault::Kill | Fault::BrokerKill => 500 + (chance >> 8) as u32 % 2000,
            Fault::Stall => 3000 + (chance >> 8) as u32 % 9000,
            Fault::Terminate => 200,
            Fault::Receiver(..) | Fault::SmallLetters(_) => 4000 + (chance >> 8) as u32 % 5000,
            Fault::Pause => 10_000,
            _ => 0,
        };
        let at_ms =
            step * (number as u32 + 1) + (chance >> 16) as u32 % (step / 2).max(1) - step / 4;
        strikes.push(Strike {
            at_ms,
            fault,
            lasts_ms,
            chance,
        });
    }
    strikes
}

fn cards(seed: u64, round: usize) -> Vec<Fault> {
    let disturbed: Vec<usize> = (0..HOOKS.len())
        .filter(|number| HOOKS[*number].disturbed)
        .collect();
    let chance = |salt: u64| mixed(seed ^ salt, round as u64) as usize;
    let receiver =
        |salt: u64, trouble| Fault::Receiver(disturbed[chance(salt) % disturbed.len()], trouble);
    let mut cards = vec![
        Fault::Kill,
        Fault::Kill,
        Fault::Terminate,
        Fault::Freeze,
        Fault::Join,
        Fault::Join,
        Fault::Leave,
        Fault::BrokerKill,
        Fault::Stall,
        Fault::Cut,
        Fault::SmallLetters(if round > 0 && chance(1).is_multiple_of(3) {
            100
        } else {
            1500
        }),
        Fault::Clock(0),
    ];
    cards.extend(
        Trouble::ALL
            .into_iter()
            .enumerate()
            .map(|(salt, trouble)| receiver(salt as u64, trouble)),
    );
    if round == 0 {
        cards.extend([Fault::Pause, Fault::Delete]);
    }
    if round < 60 {
        cards.push(Fault::Partitions(chance(9) % 2));
    }
    only(&mut cards);
    cards
}

/// `CHAOS_ONLY=Kill,Freeze` leaves these kinds alone: to find out which of them breaks something.
fn only(cards: &mut Vec<Fault>) {
    if let Ok(names) = std::env::var("CHAOS_ONLY") {
        cards.retain(|card| {
            let name = format!("{card:?}");
            names.split(',').any(|wanted| name.starts_with(wanted))
        });
        assert!(!cards.is_empty(), "CHAOS_ONLY={names} names no fault");
    }
}

fn shuffled(mut cards: Vec<Fault>, chance: u64) -> Vec<Fault> {
    for last in (1..cards.len()).rev() {
        cards.swap(last, mixed(chance, last as u64) as usize % (last + 1));
    }
    cards
}

#[test]
fn the_same_seed_gives_the_same_faults_and_every_kind_comes() {
    use std::collections::BTreeSet;
    let strikes = schedule(7, 1_200_000, 120);
    assert_eq!(strikes, schedule(7, 1_200_000, 120));
    assert_ne!(strikes, schedule(8, 1_200_000, 120));
    assert_eq!(strikes.len(), 120);
    assert!(strikes.is_sorted_by_key(|strike| strike.at_ms));
    let kinds: BTreeSet<String> = strikes.iter().map(|strike| strike.fault.kind()).collect();
    assert_eq!(kinds.len(), 18, "{kinds:?}");
    let small: BTreeSet<String> = schedule(1, 60_000, 20)
        .iter()
        .map(|strike| strike.fault.kind())
        .collect();
    assert!(small.len() >= 10, "{small:?}");
}
