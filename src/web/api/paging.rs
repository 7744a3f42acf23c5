//! Lists in pages. A cursor is sealed with an HMAC over the list, the tenant and the filters, so that it goes on exactly where
//! it was given out and nothing else can be asked with it (promise 7).

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use hmac::{Hmac, KeyInit, Mac};
use serde::Serialize;
use sha2::Sha256;
use utoipa::ToSchema;

use super::body::Query;
use super::problem::Problem;

/// Rows of a page when nothing is asked.
pub const DEFAULT_SIZE: usize = 50;
/// The most rows of a page.
pub const LARGEST_SIZE: usize = 200;
/// Bytes of the seal in a cursor.
const SEAL_BYTES: usize = 16;

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    /// Cursor of the next page, for the parameter `cursor`; null on the last.
    pub next: Option<String>,
    /// Cursor of the page before; null on the first.
    pub previous: Option<String>,
    /// The rows.
    pub results: Vec<T>,
}

/// Where a page begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum From<K = String> {
    /// At the beginning of the list.
    Start,
    /// With the row after this key.
    After(K),
    /// So that it ends with the row before this key.
    Before(K),
}

impl From {
    /// With the places that keys stand for. A key that stands for none cannot have been given out, and is the beginning.
    pub fn at<P>(&self, place_of: impl Fn(&str) -> Option<P>) -> From<P> {
        let place = match self {
            Self::Start => None,
            Self::After(key) => place_of(key).map(From::After),
            Self::Before(key) => place_of(key).map(From::Before),
        };
        place.unwrap_or(From::Start)
    }
}

/// Rows with their places, in the list's order, and whether there are others before and after them.
#[derive(Clone, Debug)]
pub struct Slice<P, T> {
    /// The rows.
    pub rows: Vec<(P, T)>,
    /// Whether there are rows before them.
    pub has_before: bool,
    /// Whether there are rows after them.
    pub has_after: bool,
}

/// Seals and opens cursors.
#[derive(Clone)]
pub struct Cursors(Hmac<Sha256>);

impl Cursors {
    /// With a key that all instances share, so that a cursor of one holds at another.
    pub fn new(key: &[u8]) -> Self {
        // HMAC takes keys of any length (RFC 2104 2); the error cannot come.
        let mac = Hmac::new_from_slice(key).unwrap_or_else(|_| Hmac::new(&Default::default()));
        Self(mac)
    }

    fn seal(&self, scope: &str, payload: &[u8]) -> Vec<u8> {
        let mut mac = self.0.clone();
        mac.update(&(scope.len() as u64).to_be_bytes());
        mac.update(scope.as_bytes());
        mac.update(payload);
        let mut seal = mac.finalize().into_bytes().to_vec();
        seal.truncate(SEAL_BYTES);
        seal
    }

    /// The cursor for a place in the list that `scope` names: its name, the tenant and the filters.
    pub fn write(&self, scope: &str, from: &From) -> Option<String> {
        let payload = match from {
            From::Start => return None,
            From::After(key) => format!("+{key}"),
            From::Before(key) => format!("-{key}"),
        };
        let mut bytes = self.seal(scope, payload.as_bytes());
        bytes.extend_from_slice(payload.as_bytes());
        Some(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// The page that a slice of the list which `scope` names is.
    pub fn page<P, T>(
        &self,
        scope: &str,
        slice: Slice<P, T>,
        key_of: impl Fn(&P) -> String,
    ) -> Page<T> {
        let edge = |row: Option<&(P, T)>| row.map(|(place, _)| key_of(place));
        let next = edge(slice.rows.last().filter(|_| slice.has_after));
        let previous = edge(slice.rows.first().filter(|_| slice.has_before));
        Page {
            next: next.and_then(|key| self.write(scope, &From::After(key))),
            previous: previous.and_then(|key| self.write(scope, &From::Before(key))),
            results: slice.rows.into_iter().map(|(_, row)| row).collect(),
        }
    }

    /// The place that a cursor names.
    ///
    /// # Errors
    /// 400: it was changed, or belongs to another list, tenant or filter.
    pub fn read(&self, scope: &str, cursor: Option<&str>) -> Result<From, Problem> {
        use subtle::ConstantTimeEq;
        let Some(cursor) = cursor else {
            return Ok(From::Start);
        };
        let refused = || {
            Problem::of_parameter(
                "cursor",
                "it is not one that this list gave out for these parameters; take `next` or `previous` of a page as it stands, or begin without a cursor",
            )
        };
        let bytes = URL_SAFE_NO_PAD.decode(cursor).map_err(|_| refused())?;
        let (seal, payload) = bytes.split_at_checked(SEAL_BYTES).ok_or_else(refused)?;
        if !bool::from(self.seal(scope, payload).ct_eq(seal)) {
            return Err(refused());
        }
        let text = std::str::from_utf8(payload).map_err(|_| refused())?;
        match text.split_at_checked(1) {
            Some(("+", key)) => Ok(From::After(key.to_owned())),
            Some(("-", key)) => Ok(From::Before(key.to_owned())),
            _ => Err(refused()),
        }
    }
}

/// The page size that a query asks for.
///
/// # Errors
/// 400 outside 1 to [`LARGEST_SIZE`].
pub fn size(query: &Query) -> Result<usize, Problem> {
    let Some(text) = query.get("page_size") else {
        return Ok(DEFAULT_SIZE);
    };
    text.parse()
        .ok()
        .filter(|size| (1..=LARGEST_SIZE).contains(size))
        .ok_or_else(|| {
            Problem::of_parameter(
                "page_size",
                format!("it must be a whole number from 1 to {LARGEST_SIZE}"),
            )
        })
}

/// Cuts a page out of rows that are sorted by their keys, which are unique.
pub fn cut<T>(
    rows: Vec<(String, T)>,
    from: &From,
    size: usize,
    write: impl Fn(&From) -> Option<String>,
) -> Page<T> {
    let begin = match from {
        From::Start => 0,
        From::After(key) => rows.partition_point(|(found, _)| found <= key),
        From::Before(key) => rows
            .partition_point(|(found, _)| found < key)
            .saturating_sub(size),
    };
    let end = match from {
        From::Before(key) => rows.partition_point(|(found, _)| found < key),
        _ => rows.len().min(begin + size),
    };
    let total = rows.len();
    let page: Vec<(String, T)> = rows.into_iter().take(end).skip(begin).collect();
    let edge = |row: Option<&(String, T)>| row.map(|(key, _)| key.clone());
    let next = edge(page.last()).filter(|_| end < total);
    let previous = edge(page.first()).filter(|_| begin > 0);
    Page {
        next: next.and_then(|key| write(&From::After(key))),
        previous: previous.and_then(|key| write(&From::Before(key))),
        results: page.into_iter().map(|(_, row)| row).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows() -> Vec<(String, usize)> {
        (0..10).map(|n| (format!("{n}"), n)).collect()
    }

    #[test]
    fn going_forth_and_back_shows_each_row_once() {
        let cursors = Cursors::new(b"key");
        let write = |from: &From| cursors.write("list", from);
        let mut from = From::Start;
        let (mut seen, mut pages) = (Vec::new(), Vec::new());
        loop {
            let page = cut(rows(), &from, 3, write);
            seen.extend(page.results.clone());
            pages.push(page.results);
            let Some(next) = page.next else { break };
            from = cursors.read("list", Some(&next)).unwrap();
        }
        assert_eq!(seen, (0..10).collect::<Vec<_>>());
        let mut back = Vec::new();
        loop {
            let page = cut(rows(), &from, 3, write);
            back.push(page.results);
            let Some(previous) = page.previous else { break };
            from = cursors.read("list", Some(&previous)).unwrap();
        }
        back.reverse();
        assert_eq!(back, pages);
    }

    #[test]
    fn a_cursor_that_was_changed_or_is_of_another_list_is_refused() {
        let cursors = Cursors::new(b"key");
        let good = cursors
            .write("list of 1", &From::After("3".into()))
            .unwrap();
        assert!(cursors.read("list of 1", Some(&good)).is_ok());
        let mut faults = 0;
        for position in 0..good.len() {
            let mut bytes = good.clone().into_bytes();
            bytes[position] = if bytes[position] == b'A' { b'B' } else { b'A' };
            let text = String::from_utf8(bytes).unwrap();
            faults += usize::from(cursors.read("list of 1", Some(&text)).is_err());
        }
        assert_eq!(faults, good.len());
        assert!(cursors.read("list of 2", Some(&good)).is_err());
        assert!(
            Cursors::new(b"other")
                .read("list of 1", Some(&good))
                .is_err()
        );
        for wrong in ["", "é", "AAAA", "="] {
            assert!(cursors.read("list of 1", Some(wrong)).is_err(), "{wrong}");
        }
    }
}
