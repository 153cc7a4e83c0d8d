//! `prompt` as clients send it: a text, texts, token ids, or lists of token ids.

use serde::de::{Deserialize, Deserializer, Error, SeqAccess, Visitor};
use std::fmt;

/// The prompts of a request, in their order.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::command::serve) struct Prompts(pub(in crate::command::serve) Vec<Given>);

/// A text that begins with nothing.
impl Default for Prompts {
    fn default() -> Self {
        Self(vec![Given::Text(String::new())])
    }
}

/// One prompt.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::command::serve) enum Given {
    Text(String),
    Ids(Vec<u32>),
}

const WANTED: &str = "a text, a list of texts, a list of token ids, or a list of lists of token ids";

impl<'de> Deserialize<'de> for Prompts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Outer;
        impl<'de> Visitor<'de> for Outer {
            type Value = Prompts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "prompt to be {WANTED}")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Prompts, E> {
                Ok(Prompts(vec![Given::Text(text.into())]))
            }

            /// As good as absent.
            fn visit_unit<E: Error>(self) -> Result<Prompts, E> {
                Ok(Prompts::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Prompts, A::Error> {
                let mut prompts = Vec::new();
                let mut ids = Vec::new();
                while let Some(item) = list.next_element()? {
                    match item {
                        Item::Id(id) => ids.push(id),
                        Item::Given(given) => prompts.push(given),
                    }
                    if !ids.is_empty() && !prompts.is_empty() {
                        return Err(A::Error::custom(format!("prompt mixes kinds, wanted {WANTED}")));
                    }
                }
                let alike = prompts.iter().all(|given| matches!(given, Given::Text(_)))
                    || prompts.iter().all(|given| matches!(given, Given::Ids(_)));
                if !alike {
                    return Err(A::Error::custom(format!("prompt mixes kinds, wanted {WANTED}")));
                }
                // `[]` is one prompt of no tokens.
                Ok(Prompts(if prompts.is_empty() { vec![Given::Ids(ids)] } else { prompts }))
            }
        }
        deserializer.deserialize_any(Outer)
    }
}

/// What a list of prompts, or a list of ids, holds.
enum Item {
    Id(u32),
    Given(Given),
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Inner;
        impl<'de> Visitor<'de> for Inner {
            type Value = Item;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("prompt to hold texts, token ids, or lists of token ids")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Item, E> {
                Ok(Item::Given(Given::Text(text.into())))
            }

            fn visit_u64<E: Error>(self, id: u64) -> Result<Item, E> {
                let id = u32::try_from(id);
                id.map(Item::Id).map_err(|_| E::custom("prompt has a token id that no vocabulary has"))
            }

            fn visit_i64<E: Error>(self, id: i64) -> Result<Item, E> {
                Err(E::custom(format!("prompt has the token id {id}, wanted 0 or more")))
            }

            fn visit_unit<E: Error>(self) -> Result<Item, E> {
                Err(E::custom(
                    "prompt has null among its token ids: the client's tokenizer declares no token to begin or end \
                     with; declare one, or send texts",
                ))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Item, A::Error> {
                let mut ids = Vec::new();
                while let Some(item) = list.next_element()? {
                    match item {
                        Item::Id(id) => ids.push(id),
                        Item::Given(_) => {
                            return Err(A::Error::custom(format!("prompt is nested, wanted {WANTED}")));
                        }
                    }
                }
                Ok(Item::Given(Given::Ids(ids)))
            }
        }
        deserializer.deserialize_any(Inner)
    }
}

#[cfg(test)]
mod tests {
    use super::{Given, Prompts};

    fn parsed(json: &str) -> Result<Vec<Given>, String> {
        serde_json::from_str::<Prompts>(json).map(|prompts| prompts.0).map_err(|error| error.to_string())
    }

    #[test]
    fn every_form_of_the_interface_is_read() {
        let text = |text: &str| Given::Text(text.into());
        assert_eq!(parsed(r#""ab""#).unwrap(), [text("ab")]);
        assert_eq!(parsed(r#"["ab", ""]"#).unwrap(), [text("ab"), text("")]);
        assert_eq!(parsed("[1, 2]").unwrap(), [Given::Ids(vec![1, 2])]);
        assert_eq!(parsed("[[1], [], [2, 3]]").unwrap(), [vec![1], vec![], vec![2, 3]].map(Given::Ids));
        assert_eq!(parsed("[]").unwrap(), [Given::Ids(vec![])]);
        assert_eq!(parsed("null").unwrap(), [text("")]);
    }

    #[test]
    fn what_is_none_of_them_is_refused_with_a_reason() {
        let wrong = [
            ("[null, 3]", "null among"),
            ("[[null]]", "null among"),
            ("[1, \"a\"]", "mixes"),
            ("[\"a\", [1]]", "mixes"),
            ("[[[1]]]", "nested"),
            ("[-1]", "-1"),
            ("[1.5]", "invalid type"),
            ("[4294967296]", "no vocabulary"),
            ("7", "invalid type"),
            ("{}", "invalid type"),
        ];
        for (json, part) in wrong {
            let message = parsed(json).unwrap_err();
            assert!(message.contains(part), "{json}: {message}");
        }
    }
}
