//! What it means that two JSON values are equal, or that one is less.
//!
//! Keeps the promise that no number is rounded on the way to a comparison: 64-bit integers, signed or not, are compared
//! as they are, against each other and against floats, so 9007199254740993 is not 9007199254740992.0. An integer beyond
//! 64 bits is already a float when the parser hands it over.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::{Number, Value};

/// A value that is not a list or an object, in a form where equal values are identical: `1`, `1.0` and `1e0` are one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Scalar<'a> {
    Null,
    Bool(bool),
    Integer(i128),
    /// The bits of a float that no `i128` can hold exactly.
    Float(u64),
    Text(Cow<'a, str>),
}

impl Scalar<'_> {
    /// The scalar that a value is; `None` for a list or an object.
    pub(crate) fn of(value: &Value) -> Option<Scalar<'_>> {
        match value {
            Value::Null => Some(Scalar::Null),
            Value::Bool(flag) => Some(Scalar::Bool(*flag)),
            Value::Number(number) => scalar_of_number(number),
            Value::String(text) => Some(Scalar::Text(Cow::Borrowed(text))),
            Value::Array(_) | Value::Object(_) => None,
        }
    }

    pub(super) fn to_value(&self) -> Value {
        match self {
            Scalar::Null => Value::Null,
            Scalar::Bool(flag) => Value::from(*flag),
            Scalar::Integer(integer) => i64::try_from(*integer)
                .map(Value::from)
                .or_else(|_| u64::try_from(*integer).map(Value::from))
                .unwrap_or_else(|_| Value::from(*integer as f64)),
            Scalar::Float(bits) => Value::from(f64::from_bits(*bits)),
            Scalar::Text(text) => Value::from(text.as_ref()),
        }
    }

    pub(crate) fn into_owned(self) -> Scalar<'static> {
        match self {
            Scalar::Null => Scalar::Null,
            Scalar::Bool(flag) => Scalar::Bool(flag),
            Scalar::Integer(integer) => Scalar::Integer(integer),
            Scalar::Float(bits) => Scalar::Float(bits),
            Scalar::Text(text) => Scalar::Text(Cow::Owned(text.into_owned())),
        }
    }
}

fn integer(number: &Number) -> Option<i128> {
    number
        .as_i64()
        .map(i128::from)
        .or_else(|| number.as_u64().map(i128::from))
}

fn scalar_of_number(number: &Number) -> Option<Scalar<'static>> {
    /// Above it a float need not fit an `i128`; no integer that the parser yields comes near it.
    const LIMIT: f64 = 1e38;
    if let Some(integer) = integer(number) {
        return Some(Scalar::Integer(integer));
    }
    let float = number.as_f64()?;
    if float.fract() == 0.0 && float.abs() < LIMIT {
        // Exact: a whole number within the type's range.
        return Some(Scalar::Integer(float as i128));
    }
    Some(Scalar::Float(float.to_bits()))
}

/// Whether two values are the same JSON: numbers by value, lists in order, objects by name.
pub(super) fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::String(left), Value::String(right)) => left == right,
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .zip(right)
                    .all(|(left, right)| equal(left, right))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len()
                && left
                    .iter()
                    .all(|(name, left)| right.get(name).is_some_and(|right| equal(left, right)))
        }
        _ => Scalar::of(left).is_some_and(|left| Some(left) == Scalar::of(right)),
    }
}

/// The order of two numbers, or of two texts (by code point, so ISO 8601 times in one zone order as times); `None` for
/// everything else.
pub(super) fn order(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (Value::Number(left), Value::Number(right)) => order_numbers(left, right),
        _ => None,
    }
}

fn order_numbers(left: &Number, right: &Number) -> Option<Ordering> {
    match (integer(left), integer(right)) {
        (Some(left), Some(right)) => Some(left.cmp(&right)),
        (Some(left), None) => order_integer_and_float(left, right.as_f64()?),
        (None, Some(right)) => {
            order_integer_and_float(right, left.as_f64()?).map(Ordering::reverse)
        }
        (None, None) => left.as_f64()?.partial_cmp(&right.as_f64()?),
    }
}

fn order_integer_and_float(integer: i128, float: f64) -> Option<Ordering> {
    if float.is_nan() {
        return None;
    }
    // `as` saturates, and no 64-bit integer is near the ends of an `i128`: a float out of range still orders rightly.
    let whole = float.trunc() as i128;
    Some(
        integer
            .cmp(&whole)
            .then_with(|| 0.0_f64.total_cmp(&(float.fract() + 0.0))),
    )
}
