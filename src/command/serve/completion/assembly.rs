//! From events to parts of choices: what can be shown, with the entries of the tokens in it.

use super::super::engine::{Entry, Event, Reason};
use serde_json::{Map, Value, json};

/// What comes next of a choice.
pub(super) struct Part {
    pub(super) choice: usize,
    pub(super) text: String,
    pub(super) entries: Vec<Entry>,
    pub(super) reason: Option<Reason>,
}

/// The choices of a request under way.
pub(super) struct Assembly {
    choices: Vec<Choice>,
    /// Likeliest tokens beside each, if entries are wanted.
    top: Option<usize>,
    prompt_tokens: usize,
    drawn: usize,
    running: usize,
}

#[derive(Default)]
struct Choice {
    /// The prompt, if it is to be shown and was not yet.
    echo: Option<String>,
    /// Characters of the prompt that is shown.
    before: usize,
    /// Characters of what was drawn that are shown.
    shown: usize,
    /// Of tokens whose text is not shown yet.
    pending: Vec<Entry>,
}

impl Assembly {
    /// For `n` choices of each prompt; `echoes` are the prompts that are to be shown.
    pub(super) fn new(
        echoes: impl Iterator<Item = Option<String>>,
        n: usize,
        top: Option<usize>,
        prompt_tokens: usize,
    ) -> Self {
        let choices = echoes.flat_map(|echo| std::iter::repeat_n(echo, n)).map(|echo| Choice {
            before: echo.as_ref().map_or(0, |text| text.chars().count()),
            echo,
            ..Choice::default()
        });
        let choices: Vec<Choice> = choices.collect();
        Self { running: choices.len(), choices, top, prompt_tokens, drawn: 0 }
    }

    /// The number of choices.
    pub(super) fn len(&self) -> usize {
        self.choices.len()
    }

    /// Whether all choices have ended.
    pub(super) fn is_over(&self) -> bool {
        self.running == 0
    }

    /// Takes an event, and gives the parts that it makes. An error is the model's.
    pub(super) fn take(&mut self, event: Event) -> Result<Vec<Part>, String> {
        match event {
            Event::Failed(message) => Err(message),
            Event::Prompt { first, count, entries } => {
                let part = |choice: usize| Part {
                    choice,
                    text: self.choices[choice].echo.take().unwrap_or_default(),
                    entries: entries.clone(),
                    reason: None,
                };
                Ok((first..first + count).map(part).collect())
            }
            Event::Token { choice, text, entry } => {
                self.drawn += 1;
                Ok(vec![self.choices[choice].part(choice, &text, entry, None)])
            }
            Event::Done { choice, text, reason } => {
                self.running -= 1;
                Ok(vec![self.choices[choice].part(choice, &text, None, Some(reason))])
            }
        }
    }

    pub(super) fn usage(&self) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.drawn,
            "total_tokens": self.prompt_tokens + self.drawn,
        })
    }

    /// The `logprobs` of a choice or a part of one.
    pub(super) fn logprobs(&self, entries: &[Entry]) -> Value {
        let Some(top) = self.top else { return Value::Null };
        let column = |of: &dyn Fn(&Entry) -> Value| entries.iter().map(of).collect::<Vec<Value>>();
        json!({
            "tokens": column(&|entry| json!(entry.token)),
            "token_logprobs": column(&|entry| json!(entry.logprob)),
            "top_logprobs": (top > 0).then(|| column(&likeliest)),
            "text_offset": column(&|entry| json!(entry.offset)),
        })
    }
}

/// Tokens that are spelled alike are one key, the likelier one's.
fn likeliest(entry: &Entry) -> Value {
    if entry.logprob.is_none() {
        return Value::Null;
    }
    let mut map = Map::new();
    for (token, logprob) in &entry.top {
        map.entry(token.clone()).or_insert_with(|| json!(logprob));
    }
    Value::Object(map)
}

impl Choice {
    fn part(&mut self, choice: usize, text: &str, entry: Option<Entry>, reason: Option<Reason>) -> Part {
        self.shown += text.chars().count();
        self.pending.extend(entry);
        // What begins behind a string that ended the text is not part of it.
        let all = matches!(reason, Some(Reason::End | Reason::Length));
        let shown = |entry: &&Entry| all || entry.offset < self.shown;
        let count = self.pending.iter().take_while(shown).count();
        let before = self.before;
        let entries =
            self.pending.drain(..count).map(|entry| Entry { offset: entry.offset + before, ..entry });
        let entries = entries.collect();
        Part { choice, text: self.echo.take().unwrap_or_default() + text, entries, reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(token: &str, offset: usize) -> Option<Entry> {
        Some(Entry { token: token.into(), logprob: Some(-1.0), top: vec![], offset })
    }

    #[test]
    fn entries_follow_their_text_and_those_behind_a_stop_are_left_out() {
        let mut assembly = Assembly::new([Some("ab".to_string())].into_iter(), 1, Some(0), 2);
        let mut take = |event| {
            let part = assembly.take(event).unwrap().remove(0);
            let offsets: Vec<usize> = part.entries.iter().map(|entry| entry.offset).collect();
            (part.text, offsets)
        };
        let token = |text: &str, entry| Event::Token { choice: 0, text: text.into(), entry };
        assert_eq!(take(token("c", entry("c", 0))), ("abc".into(), vec![2]));
        assert_eq!(take(token("", entry("d", 1))), ("".into(), vec![])); // may begin a stop string
        let done = Event::Done { choice: 0, text: String::new(), reason: Reason::Stop };
        assert_eq!(take(done), ("".into(), vec![]));
        assert!(assembly.is_over());
        assert_eq!(assembly.usage()["total_tokens"], 4);
    }
}
