//! What was said so far, as a template is to see it.

use serde_json::{Value, json};

use super::thoughts::closed;
use crate::text::{Conversation, ThinkSwitch};

/// A dialogue between turns.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Dialogue {
    /// The system text; an empty one is none.
    pub system: String,
    /// Tokens of thoughts in an answer, at most.
    budget: Option<u64>,
    /// Whether somebody knows that there is no room for the whole budget any more.
    shortened: bool,
    /// How the checkpoint is told whether to think, where that is known.
    switch: Option<ThinkSwitch>,
    /// Whether it was told, and what.
    thinking: Option<bool>,
    /// Questions and answers, in turn.
    turns: Vec<Value>,
}

impl Dialogue {
    /// An empty one.
    pub fn new(switch: Option<ThinkSwitch>) -> Self {
        Self { switch, ..Self::default() }
    }

    /// Tokens of thoughts in an answer, at most.
    pub fn budget(&self) -> Option<u64> {
        self.budget
    }

    /// Limits the tokens of thoughts from now on; `None` is no limit.
    pub fn set_budget(&mut self, tokens: Option<u64>) {
        self.budget = tokens;
        self.shortened = false;
    }

    /// Whether it is news that only so much of the budget is left.
    pub(super) fn shorten(&mut self, left: u64) -> bool {
        let told = self.shortened || self.thinking == Some(false);
        let news = !told && self.budget.is_some_and(|budget| left < budget);
        self.shortened |= news;
        news
    }

    /// Has the model think, or not, from now on.
    ///
    /// # Errors
    /// A sentence where nobody knows how to tell it.
    pub fn think(&mut self, on: bool) -> Result<(), String> {
        if self.switch.is_none() {
            return Err(format!(
                "this checkpoint has no switch for thinking that is known: {}",
                ThinkSwitch::SOUGHT
            ));
        }
        self.thinking = Some(on);
        Ok(())
    }

    /// Adds a question.
    pub fn ask(&mut self, text: &str) {
        self.turns.push(json!({"role": "user", "content": text}));
    }

    /// Adds an answer with its thoughts, which the template cuts. Thoughts that were cut short are closed, or
    /// the template would take them for an answer.
    pub fn answered(&mut self, text: &str) {
        self.turns.push(json!({"role": "assistant", "content": closed(text)}));
    }

    /// Forgets every turn.
    pub fn clear(&mut self) {
        self.turns.clear();
        self.shortened = false;
    }

    /// What it is without all that was said before the last question.
    pub(super) fn last_question(&self) -> Self {
        let asked = self.turns.iter().rposition(|turn| turn["role"] == "user");
        Self { turns: self.turns[asked.unwrap_or(0)..].to_vec(), ..self.clone() }
    }

    /// The dialogue for the template.
    pub fn conversation(&self) -> Conversation {
        let mut conversation = Conversation { messages: self.turns.clone(), ..Conversation::default() };
        match self.switch.zip(self.thinking) {
            Some((switch, on)) => switch.tell(on, &self.system, &mut conversation),
            None => conversation.put_system(&self.system),
        }
        conversation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(dialogue: &Dialogue) -> Value {
        dialogue.conversation().messages.into()
    }

    #[test]
    fn turns_are_kept_until_they_are_cleared() {
        let mut dialogue = Dialogue::new(None);
        dialogue.ask("a");
        assert_eq!(messages(&dialogue), json!([{"role": "user", "content": "a"}]));
        dialogue.answered("<think>\nwhy");
        dialogue.system = "s".to_owned();
        let [system, user] =
            [json!({"role": "system", "content": "s"}), json!({"role": "user", "content": "a"})];
        let answer = json!({"role": "assistant", "content": "<think>\nwhy\n</think>\n\n"});
        assert_eq!(messages(&dialogue), json!([system, user, answer]));
        dialogue.ask("b");
        let question = json!({"role": "user", "content": "b"});
        assert_eq!(messages(&dialogue.last_question()), json!([system, question]));
        dialogue.clear();
        assert_eq!(messages(&dialogue), json!([system]));
        assert!(dialogue.think(true).unwrap_err().contains("no switch for thinking that is known"));
    }

    #[test]
    fn each_family_is_told_in_its_way() {
        let told = |switch, on, system: &str| {
            let mut dialogue = Dialogue::new(Some(switch));
            dialogue.system = system.to_owned();
            dialogue.ask("a");
            dialogue.answered("b");
            dialogue.ask("c");
            let untold = dialogue.conversation();
            dialogue.think(on).unwrap();
            let told = dialogue.conversation();
            assert_ne!(told, untold);
            let texts: Vec<_> =
                told.messages.iter().map(|message| message["content"].as_str().unwrap().to_owned()).collect();
            (texts.join("|"), Value::from(told.variables).to_string())
        };
        let all = [
            ThinkSwitch::Keyword,
            ThinkSwitch::Words,
            ThinkSwitch::LastWord,
            ThinkSwitch::Reasoning,
            ThinkSwitch::Detailed,
        ];
        let lines = all.iter().flat_map(|switch| {
            [(true, "s"), (false, "s"), (false, "")].map(|(on, system)| {
                let (texts, variables) = told(*switch, on, system);
                format!("{switch:?} {on} {system:?}: {texts} {variables}\n")
            })
        });
        insta::assert_snapshot!(lines.collect::<String>());
    }
}
