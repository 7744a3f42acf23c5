//! A document as a tree that knows where each part stands, because a message without its line is of little use in a file
//! of a thousand webhooks. YAML 1.2 contains JSON, so one parser reads both.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::{Location, Spanned};

use crate::subscription::read::pointer;

/// A place in the text, counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) line: u64,
    pub(super) column: u64,
}

impl From<Location> for Place {
    fn from(location: Location) -> Self {
        Self {
            line: location.line().max(1),
            column: location.column().max(1),
        }
    }
}

/// A node of the document.
pub(super) enum Node {
    Plain(Value),
    List(Vec<Spanned<Node>>),
    Object(Vec<(Spanned<String>, Spanned<Node>)>),
}

/// A document as JSON, with the place of each of its parts by JSON pointer.
pub(super) struct Document {
    pub(super) value: Value,
    places: BTreeMap<String, Place>,
}

impl Document {
    /// Reads YAML or JSON.
    pub(super) fn parse(text: &str) -> Result<Self, serde_saphyr::Error> {
        let options = serde_saphyr::options! {
            // `no` is a country and `0042` a customer, not a boolean and a number.
            strict_booleans: true,
            leading_zero_numbers_as_strings: true,
            underscored_numbers_as_strings: true,
        };
        let root: Spanned<Node> = serde_saphyr::from_str_with_options(text, options)?;
        let mut places = BTreeMap::new();
        let place = root.referenced.into();
        let value = unfold(root.value, place, "", &mut places);
        Ok(Self { value, places })
    }

    /// Where a part stands; for one that is missing, the nearest part around it.
    pub(super) fn place(&self, pointer: &str) -> Place {
        let mut pointer = pointer;
        loop {
            if let Some(place) = self.places.get(pointer) {
                return *place;
            }
            match pointer.rsplit_once('/') {
                Some((parent, _)) => pointer = parent,
                None => return Place { line: 1, column: 1 },
            }
        }
    }
}

/// Members of objects are placed at their key, which is where one looks; entries of lists at their value.
fn unfold(node: Node, place: Place, at: &str, places: &mut BTreeMap<String, Place>) -> Value {
    places.insert(at.to_owned(), place);
    match node {
        Node::Plain(value) => value,
        Node::List(entries) => entries
            .into_iter()
            .enumerate()
            .map(|(position, entry)| {
                let place = entry.referenced.into();
                unfold(
                    entry.value,
                    place,
                    &pointer(at, &position.to_string()),
                    places,
                )
            })
            .collect(),
        Node::Object(members) => {
            let mut object = Map::new();
            for (key, member) in members {
                let value = unfold(
                    member.value,
                    key.referenced.into(),
                    &pointer(at, &key.value),
                    places,
                );
                object.insert(key.value, value);
            }
            Value::Object(object)
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .write_str("a value that JSON has (text, number, true or false, null, list, object)")
    }

    fn visit_unit<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Plain(Value::Null))
    }

    fn visit_none<E: Error>(self) -> Result<Node, E> {
        Ok(Node::Plain(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Plain(value.into()))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Plain(value.into()))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Plain(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        let number = Number::from_f64(value);
        number
            .map(|number| Node::Plain(number.into()))
            .ok_or_else(|| E::custom("JSON has no such number"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Plain(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = access.next_element()? {
            entries.push(entry);
        }
        Ok(Node::List(entries))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Node, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = access.next_entry()? {
            members.push(member);
        }
        Ok(Node::Object(members))
    }
}
