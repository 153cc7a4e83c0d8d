//! What stands behind the question mark of an address, taken part by part.

use super::super::failure::Failure;
use super::super::routes::decoded;
use clap::ValueEnum;
use std::str::FromStr;

/// Characters of a value that a message shows.
const SHOWN: usize = 60;

/// Names and values that nobody has taken yet.
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(query: Option<&str>) -> Self {
        let parts = query.unwrap_or_default().split('&').filter(|part| !part.is_empty());
        let pair = |part: &str| {
            let (name, value) = part.split_once('=').unwrap_or((part, ""));
            (decoded(name), decoded(value))
        };
        Self(parts.map(pair).collect())
    }

    /// All values of a name.
    pub(super) fn all(&mut self, name: &str) -> Vec<String> {
        let (taken, rest) = std::mem::take(&mut self.0).into_iter().partition(|(known, _)| known == name);
        self.0 = rest;
        let taken: Vec<(String, String)> = taken;
        taken.into_iter().map(|(_, value)| value).collect()
    }

    /// The value of a name. Fails if there are several.
    fn one(&mut self, name: &str) -> Result<Option<String>, Failure> {
        let mut values = self.all(name);
        match values.len() {
            0 | 1 => Ok(values.pop()),
            count => Err(Failure::field(name, format!("{name} is given {count} times, wanted once"))),
        }
    }

    /// One of the names that the command line knows.
    pub(super) fn choice<T: ValueEnum>(&mut self, name: &str) -> Result<Option<T>, Failure> {
        let Some(given) = self.one(name)? else { return Ok(None) };
        T::from_str(&given, false).map(Some).map_err(|_| {
            let names = T::value_variants().iter().filter_map(ValueEnum::to_possible_value);
            let names: Vec<String> = names.map(|value| value.get_name().to_string()).collect();
            Failure::field(name, format!("{name} is {}, wanted one of {}", shown(&given), names.join(", ")))
        })
    }

    /// A number within bounds.
    pub(super) fn number<T: FromStr + PartialOrd + std::fmt::Display>(
        &mut self,
        name: &str,
        least: T,
        most: T,
    ) -> Result<Option<T>, Failure> {
        let Some(given) = self.one(name)? else { return Ok(None) };
        match given.parse().ok().filter(|number| *number >= least && *number <= most) {
            Some(number) => Ok(Some(number)),
            None => {
                let message = format!("{name} is {}, wanted a number from {least} to {most}", shown(&given));
                Err(Failure::field(name, message))
            }
        }
    }

    /// Fails if something is left.
    pub(super) fn finish(self) -> Result<(), Failure> {
        let Some((name, _)) = self.0.first() else { return Ok(()) };
        Err(Failure::field(&cut(name), format!("{} is no part of this request", shown(name))))
    }
}

fn cut(text: &str) -> String {
    text.chars().take(SHOWN).collect()
}

fn shown(text: &str) -> String {
    format!("{:?}", cut(text))
}

#[cfg(test)]
mod tests {
    use super::Query;
    use crate::study::curve::Along;

    #[test]
    fn parts_are_taken_by_name_and_none_may_be_left() {
        let mut query = Query::parse(Some("run=a%26b&x=time&run=c+d&width=400"));
        assert_eq!(query.all("run"), ["a&b", "c+d"]);
        assert_eq!(query.choice("x").unwrap(), Some(Along::Time));
        assert_eq!(query.number("width", 320, 2000).unwrap(), Some(400));
        assert_eq!(query.choice::<Along>("x").unwrap(), None);
        query.finish().unwrap();
        assert!(Query::parse(Some("y")).finish().is_err());
    }

    #[test]
    fn what_cannot_be_used_is_refused() {
        let mut query = Query::parse(Some("x=up&width=12&split=a&split=b"));
        assert!(query.choice::<Along>("x").is_err());
        assert!(query.number("width", 320, 2000).is_err());
        assert!(query.choice::<Along>("split").is_err());
    }
}
