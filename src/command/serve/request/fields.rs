//! The fields of a JSON object, taken one by one; null is as good as absent.

use super::super::failure::Failure;
use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};
use std::fmt::{self, Formatter};
use std::ops::RangeInclusive;

/// Characters of a value that a message shows.
const SHOWN: usize = 60;

/// The fields of an object, none of which is there twice: which of the two is meant nobody knows.
pub(in crate::command::serve) struct Object(Map<String, Value>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_map(EachOnce)
    }
}

impl From<Object> for Map<String, Value> {
    fn from(Object(fields): Object) -> Self {
        fields
    }
}

struct EachOnce;

impl<'de> Visitor<'de> for EachOnce {
    type Value = Object;

    fn expecting(&self, to: &mut Formatter<'_>) -> fmt::Result {
        to.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
        let mut fields = Map::new();
        while let Some((name, value)) = map.next_entry::<String, Value>()? {
            let shown: String = name.chars().take(SHOWN).collect();
            if fields.insert(name, value).is_some() {
                return Err(A::Error::custom(format!("duplicate field `{shown}`")));
            }
        }
        Ok(Object(fields))
    }
}

/// Fields that nobody has taken yet.
pub(in crate::command::serve) struct Fields {
    rest: Map<String, Value>,
    known: Vec<&'static str>,
}

impl Fields {
    pub(in crate::command::serve) fn new(rest: impl Into<Map<String, Value>>) -> Self {
        Self { rest: rest.into(), known: Vec::new() }
    }

    fn take(&mut self, name: &'static str) -> Option<Value> {
        self.known.push(name);
        self.rest.remove(name).filter(|value| !value.is_null())
    }

    pub(in crate::command::serve) fn string(
        &mut self,
        name: &'static str,
    ) -> Result<Option<String>, Failure> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(name, &other, "a text")),
        }
    }

    /// A name; a number is taken for the name that it is written as.
    pub(in crate::command::serve) fn name(&mut self, name: &'static str) -> Result<Option<String>, Failure> {
        match self.take(name) {
            Some(Value::Number(number)) => Ok(Some(number.to_string())),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(other) => Err(wrong(name, &other, "a text")),
            None => Ok(None),
        }
    }

    /// False unless it says true.
    pub(in crate::command::serve) fn flag(&mut self, name: &'static str) -> Result<bool, Failure> {
        match self.take(name) {
            None => Ok(false),
            Some(Value::Bool(flag)) => Ok(flag),
            Some(other) => Err(wrong(name, &other, "true or false")),
        }
    }

    pub(in crate::command::serve) fn count(
        &mut self,
        name: &'static str,
        least: u64,
        most: u64,
    ) -> Result<Option<u64>, Failure> {
        let Some(value) = self.take(name) else { return Ok(None) };
        let fits = whole(&value).filter(|count| (least as i128..=most as i128).contains(count));
        match fits {
            Some(count) => Ok(Some(count as u64)),
            None => Err(wrong(name, &value, &format!("an integer from {least} to {most}"))),
        }
    }

    /// How many of the likeliest: -1, as some clients write it, and 0 are all.
    pub(in crate::command::serve) fn top_k(&mut self, name: &'static str) -> Result<Option<usize>, Failure> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match whole(&value) {
            Some(-1) => Ok(Some(0)),
            Some(count) if (0..=i128::from(u32::MAX)).contains(&count) => Ok(Some(count as usize)),
            _ => Err(wrong(name, &value, "an integer from 0 to 4294967295, or -1 for all")),
        }
    }

    /// Any 64 bits, with or without a sign.
    pub(in crate::command::serve) fn seed(&mut self, name: &'static str) -> Result<Option<u64>, Failure> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_u64().or_else(|| value.as_i64().map(|seed| seed as u64)) {
            Some(seed) => Ok(Some(seed)),
            None => Err(wrong(name, &value, "an integer of 64 bits")),
        }
    }

    pub(in crate::command::serve) fn number(
        &mut self,
        name: &'static str,
        range: RangeInclusive<f64>,
    ) -> Result<Option<f64>, Failure> {
        let Some(value) = self.take(name) else { return Ok(None) };
        match value.as_f64().filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => {
                let wanted = match *range.start() {
                    f64::MIN_POSITIVE => format!("above 0 and at most {}", range.end()),
                    least => format!("from {least} to {}", range.end()),
                };
                Err(wrong(name, &value, &format!("a number {wanted}")))
            }
        }
    }

    /// A text, or a list of them.
    pub(in crate::command::serve) fn strings(
        &mut self,
        name: &'static str,
        most: usize,
        longest: usize,
    ) -> Result<Vec<String>, Failure> {
        let Some(value) = self.take(name) else { return Ok(Vec::new()) };
        let wanted = format!("a text or a list of at most {most} texts, each of at most {longest} bytes");
        let items = match &value {
            Value::Array(items) => items.as_slice(),
            one => std::slice::from_ref(one),
        };
        let text = |item: &Value| item.as_str().filter(|text| text.len() <= longest).map(str::to_string);
        match items.iter().map(text).collect::<Option<Vec<String>>>().filter(|items| items.len() <= most) {
            Some(texts) => Ok(texts),
            None => Err(wrong(name, &value, &wanted)),
        }
    }

    pub(in crate::command::serve) fn object(
        &mut self,
        name: &'static str,
    ) -> Result<Option<Map<String, Value>>, Failure> {
        match self.take(name) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(other) => Err(wrong(name, &other, "an object")),
        }
    }

    /// Accepted with one of these values, which change nothing; with any other it is not supported.
    pub(in crate::command::serve) fn neutral(
        &mut self,
        name: &'static str,
        values: &[Value],
    ) -> Result<(), Failure> {
        match self.take(name) {
            Some(value) if !values.contains(&value) => {
                let wanted: Vec<String> = values.iter().map(Value::to_string).collect();
                let what = format!(
                    "{name} is {}, which is not supported: leave it out, or {}",
                    shown(&value),
                    wanted[0]
                );
                Err(Failure::field(name, what))
            }
            _ => Ok(()),
        }
    }

    /// Accepted whatever it says.
    pub(in crate::command::serve) fn any(&mut self, name: &'static str) {
        self.take(name);
    }

    /// No field is left, but for null ones.
    pub(in crate::command::serve) fn finish(self) -> Result<(), Failure> {
        let Some((name, _)) = self.rest.iter().find(|(_, value)| !value.is_null()) else { return Ok(()) };
        let shown: String = name.chars().take(SHOWN).collect();
        let near = |known: &&&str| strsim::jaro_winkler(known, name) > 0.85;
        let hint = match self.known.iter().find(near) {
            Some(known) => format!("; did you mean {known}?"),
            None => String::new(),
        };
        Err(Failure::field(&shown, format!("{shown:?} is no field of this request{hint}")))
    }
}

/// An integer, however it is written.
fn whole(value: &Value) -> Option<i128> {
    let float = || value.as_f64().filter(|number| number.fract() == 0.0 && number.abs() < 1e15);
    let signed = value.as_i64().map(i128::from).or_else(|| value.as_u64().map(i128::from));
    signed.or_else(|| float().map(|number| number as i128))
}

fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(SHOWN) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}

fn wrong(name: &str, value: &Value, wanted: &str) -> Failure {
    Failure::field(name, format!("{name} is {}, wanted {wanted}", shown(value)))
}
