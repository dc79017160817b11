//! Options that limit how much a model thinks.

use std::path::Path;
use std::sync::Arc;

use clap::Args;

use super::{CommandError, number, output, whole};
use crate::text::{Budget, CLOSE, Grace, OPEN, Text, ThinkingBudget};

/// The options of a chat, where a budget may also come later.
#[derive(Debug, Args)]
pub(super) struct ChatBudgetArgs {
    /// Tokens of thoughts; then the thoughts are closed, within the grace, and the answer begins. 0 allows no thoughts.
    #[arg(long, value_name = "N", value_parser = whole, allow_negative_numbers = true)]
    think_budget: Option<u64>,
    /// How far thoughts may go beyond their budget to end with a sentence or a line: tokens, or a part of the
    /// budget as `10%`, which it is unless given.
    #[arg(long, value_name = "N|N%", value_parser = grace, allow_negative_numbers = true)]
    think_grace: Option<Grace>,
}

/// The options of a single answer, where a grace means nothing without a budget.
#[derive(Debug, Args)]
#[command(mut_arg("think_grace", |grace| grace.requires("think_budget")))]
pub(super) struct BudgetArgs {
    #[command(flatten)]
    options: ChatBudgetArgs,
}

/// Tokens, or per cent.
pub(super) fn grace(text: &str) -> Result<Grace, String> {
    match text.strip_suffix('%') {
        Some(percent) => number(percent, 0..=100).map(|percent| Grace::Percent(percent as u8)),
        None => whole(text).map(|tokens| Grace::Tokens(usize::try_from(tokens).unwrap_or(usize::MAX))),
    }
}

impl ChatBudgetArgs {
    /// The budget's tokens, if there is one.
    pub(super) fn given(&self) -> Option<u64> {
        self.think_budget
    }

    /// A budget of so many tokens.
    pub(super) fn budget(&self, tokens: u64) -> Budget {
        let tokens = usize::try_from(tokens).unwrap_or(usize::MAX);
        Budget { tokens, grace: self.think_grace.unwrap_or_default() }
    }
}

impl BudgetArgs {
    /// The budget's tokens, or 0 without one.
    pub(super) fn tokens(&self) -> u64 {
        self.given().unwrap_or(0)
    }

    /// The budget's tokens, if there is one.
    pub(super) fn given(&self) -> Option<u64> {
        self.options.given()
    }

    /// The hook for a prompt in a context, where a budget is given.
    pub(super) fn hook(
        &self,
        text: Option<&Arc<Text>>,
        checkpoint: &Path,
        prompt: &[u32],
        context: u64,
    ) -> Result<Option<ThinkingBudget>, CommandError> {
        let Some(tokens) = self.given() else { return Ok(None) };
        let Some(text) = text else {
            let what = "--think-budget needs the checkpoint's tokenizer.json".to_owned();
            return Err(CommandError::Refused(what));
        };
        let budget = self.options.budget(tokens);
        hook(text, checkpoint, (prompt, context), budget).map(Some)
    }
}

/// The hook of a budget for a prompt in a context.
pub(super) fn hook(
    text: &Arc<Text>,
    checkpoint: &Path,
    (prompt, context): (&[u32], u64),
    budget: Budget,
) -> Result<ThinkingBudget, CommandError> {
    let refused = |what: String| Err(CommandError::Refused(what));
    let (taken, tokens) = (prompt.len() as u64, budget.tokens);
    if taken.saturating_add(tokens as u64) > context {
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
    Ok(ThinkingBudget::new(Arc::clone(text), budget)?)
}

/// Tokens that thoughts leave to their closing and to the beginning of an answer, where they can.
const REST: u64 = 16;

/// Refuses a budget that no prompt of a chat leaves room for.
pub(super) fn check(budget: Budget, context: u64) -> Result<(), CommandError> {
    let limit = budget.limit() as u64;
    if limit.saturating_add(REST) <= context {
        return Ok(());
    }
    let (tokens, grace) = (budget.tokens, limit - budget.tokens as u64);
    Err(CommandError::Refused(format!(
        "a thinking budget of {tokens}, a grace of {grace} and {REST} tokens for an answer do not fit the context of {context}"
    )))
}

/// As much of a budget as fits where there is room for so many new tokens; grace goes first.
pub(super) fn fit(budget: Budget, room: u64) -> Budget {
    let most = usize::try_from(room.saturating_sub(REST)).unwrap_or(usize::MAX);
    let tokens = budget.tokens.min(most);
    Budget { tokens, grace: Grace::Tokens(budget.limit().min(most) - tokens) }
}

/// Warns where thoughts may take all the new tokens that `--max-new-tokens` allows.
pub(super) fn warn_of_no_answer(budget: Option<u64>, max_new_tokens: Option<u64>) {
    if let Some(what) = no_answer(budget, max_new_tokens) {
        output::warning(&what);
    }
}

/// What is to be said where a budget and a number of new tokens leave no room for an answer.
pub(super) fn no_answer(budget: Option<u64>, max_new_tokens: Option<u64>) -> Option<String> {
    let (budget, most) = budget.zip(max_new_tokens).filter(|(budget, most)| most <= budget)?;
    Some(format!(
        "thoughts with a budget of {budget} leave no room for an answer where --max-new-tokens is {most}"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_gives_way_to_an_answer() {
        let budget = Budget { tokens: 50, grace: Grace::Percent(20) };
        let fitted = |room| {
            let Budget { tokens, grace } = fit(budget, room);
            (tokens, grace)
        };
        assert_eq!(fitted(u64::MAX), (50, Grace::Tokens(10)));
        assert_eq!(fitted(60 + REST), (50, Grace::Tokens(10)));
        assert_eq!(fitted(53 + REST), (50, Grace::Tokens(3)));
        assert_eq!(fitted(20 + REST), (20, Grace::Tokens(0)));
        assert_eq!(fitted(3), (0, Grace::Tokens(0)));
        assert!(check(budget, 60 + REST).is_ok());
        assert_eq!(
            check(budget, 59 + REST).unwrap_err().to_string(),
            "a thinking budget of 50, a grace of 10 and 16 tokens for an answer do not fit the context of 75"
        );
        let huge = Budget { tokens: usize::MAX, grace: Grace::Percent(100) };
        assert!(check(huge, u64::MAX - 1).is_err());
        assert!(check(Budget { tokens: 0, grace: Grace::default() }, REST).is_ok());
    }

    #[test]
    fn thoughts_that_take_every_token_leave_no_answer() {
        for most in [1, 8] {
            let said = no_answer(Some(8), Some(most)).unwrap();
            assert_eq!(
                said,
                format!(
                    "thoughts with a budget of 8 leave no room for an answer where --max-new-tokens is {most}"
                )
            );
        }
        for (budget, most) in [(Some(8), Some(9)), (Some(8), None), (None, Some(1)), (Some(0), Some(1))] {
            assert_eq!(no_answer(budget, most), None, "{budget:?} {most:?}");
        }
    }

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
