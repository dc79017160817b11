//! Options that limit how much a model thinks.

use std::path::Path;
use std::sync::Arc;

use clap::Args;

use super::{CommandError, number, whole};
use crate::text::{Budget, CLOSE, Grace, OPEN, Text, ThinkingBudget};

#[derive(Debug, Args)]
pub(super) struct BudgetArgs {
    /// Tokens of thoughts; then the thoughts are closed, within the grace, and the answer begins. 0 allows no thoughts.
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    think_budget: Option<u64>,
    /// How far thoughts may go beyond their budget to end with a sentence or a line: tokens, or a part of the
    /// budget as `10%`, which it is unless given.
    #[arg(long, value_name = "N|N%", value_parser = grace, allow_negative_numbers = true, requires = "think_budget")]
    think_grace: Option<Grace>,
}

/// Tokens, or per cent.
fn grace(text: &str) -> Result<Grace, String> {
    match text.strip_suffix('%') {
        Some(percent) => number(percent, 0..=100).map(|percent| Grace::Percent(percent as u8)),
        None => whole(text).map(|tokens| Grace::Tokens(usize::try_from(tokens).unwrap_or(usize::MAX))),
    }
}

impl BudgetArgs {
    /// The budget's tokens, or 0 without one.
    pub(super) fn tokens(&self) -> u64 {
        self.think_budget.unwrap_or(0)
    }

    /// The budget's tokens, if there is one.
    pub(super) fn given(&self) -> Option<u64> {
        self.think_budget
    }

    /// How far thoughts may go beyond it.
    pub(super) fn grace(&self) -> Grace {
        self.think_grace.unwrap_or_default()
    }

    /// The hook for a prompt in a context, where a budget is given.
    pub(super) fn hook(
        &self,
        text: Option<&Arc<Text>>,
        checkpoint: &Path,
        prompt: &[u32],
        context: u64,
    ) -> Result<Option<ThinkingBudget>, CommandError> {
        let Some(tokens) = self.think_budget else { return Ok(None) };
        let Some(text) = text else {
            let what = "--think-budget needs the checkpoint's tokenizer.json".to_owned();
            return Err(CommandError::Refused(what));
        };
        hook(text, checkpoint, (prompt, context), (tokens, self.grace())).map(Some)
    }
}

/// The hook of a budget for a prompt in a context.
pub(super) fn hook(
    text: &Arc<Text>,
    checkpoint: &Path,
    (prompt, context): (&[u32], u64),
    (tokens, grace): (u64, Grace),
) -> Result<ThinkingBudget, CommandError> {
    let refused = |what: String| Err(CommandError::Refused(what));
    let taken = prompt.len() as u64;
    if taken.saturating_add(tokens) > context {
        let prompt = if taken == 1 { "1 prompt token".to_owned() } else { format!("{taken} prompt tokens") };
        return refused(format!(
            "a thinking budget of {tokens} with {prompt} does not fit the context of {context}"
        ));
    }
    // What the user's own text says of tags does not show that the model writes them.
    if !text.template_has_tags()? && !text.opens_thinking(prompt)? {
        return refused(format!(
            "a thinking budget looks for `{OPEN}` and `{CLOSE}`, but the chat template of `{}` has neither, and the prompt opens no thoughts",
            checkpoint.display()
        ));
    }
    let budget = Budget { tokens: tokens as usize, grace };
    Ok(ThinkingBudget::new(Arc::clone(text), budget)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn graces_are_tokens_or_per_cent() {
        assert_eq!(grace("12"), Ok(Grace::Tokens(12)));
        assert_eq!(grace("0"), Ok(Grace::Tokens(0)));
        assert_eq!(grace("10%"), Ok(Grace::Percent(10)));
        assert_eq!(grace("101%").unwrap_err(), "101 is not in 0..=100");
        assert_eq!(grace("-1").unwrap_err(), "-1 is not in 0..=18446744073709551615");
        for bad in ["", "%", "x", "1.5", "10 %"] {
            assert_eq!(grace(bad).unwrap_err(), "this is not a whole number", "{bad}");
        }
    }
}
