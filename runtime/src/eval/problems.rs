//! Problems, one JSON object a line.

use std::path::{Path, PathBuf};

use serde_json::Value;
use thiserror::Error;

use super::Matching;
use crate::text::{Conversation, kind, read_input};

/// A question and its answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Problem {
    /// Line of the file, from 1.
    pub line: usize,
    /// The messages, and what else the template is given.
    pub conversation: Conversation,
    /// What the model is to answer.
    pub answer: String,
}

/// Why a file has no problems to give.
#[derive(Debug, Error)]
pub enum ProblemError {
    /// A file that could not be read.
    #[error("cannot read `{}`: {source}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A line that is no problem.
    #[error("`{}`, line {line}: {what}", file.display())]
    Line {
        /// The file.
        file: PathBuf,
        /// Its line, from 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
    /// A file of empty lines.
    #[error("`{}` has no problems; one is `{{\"messages\": [...], \"answer\": \"...\"}}` on a line of its own", file.display())]
    Empty {
        /// The file.
        file: PathBuf,
    },
}

/// Reads a file of problems: on each line an object with `messages`, or with the text of one question as `prompt`, and
/// `answer`, a text or a number. What else the object has are variables of the template. The file `-` is standard input.
///
/// # Errors
/// [`ProblemError`], with the line.
pub fn open(file: &Path, matching: Matching) -> Result<Vec<Problem>, ProblemError> {
    let (file, text) = read_input(file);
    let text = text.map_err(|source| ProblemError::Read { file: file.clone(), source })?;
    let mut problems = Vec::new();
    for (n, json) in text.lines().enumerate().filter(|(_, json)| !json.trim().is_empty()) {
        let line = n + 1;
        let wrong = |what| ProblemError::Line { file: file.clone(), line, what };
        let (conversation, answer) = read(json, matching).map_err(wrong)?;
        problems.push(Problem { line, conversation, answer });
    }
    if problems.is_empty() { Err(ProblemError::Empty { file }) } else { Ok(problems) }
}

/// The problem of a line, or what is wrong with it.
fn read(json: &str, matching: Matching) -> Result<(Conversation, String), String> {
    let fault = |error: serde_json::Error| {
        // The line that the parser counts is always the first.
        let said = error.to_string();
        let said = said.split(" at line ").next().unwrap_or_default();
        let hint = if error.is_eof() { "; a problem stands on one line" } else { "" };
        format!("this is not JSON, at column {}: {said}{hint}", error.column())
    };
    let Value::Object(mut object) = serde_json::from_str(json).map_err(fault)? else {
        return Err("a problem is an object with `messages` and `answer`".to_owned());
    };
    let answer = match object.shift_remove("answer") {
        Some(Value::String(answer)) => answer,
        Some(Value::Number(answer)) if answer.is_i64() || answer.is_u64() => answer.to_string(),
        Some(Value::Number(_)) => {
            return Err(
                "the `answer` is a number whose digits JSON does not keep; write it as a text".to_owned()
            );
        }
        Some(other) => {
            return Err(format!("the `answer` must be a text or a number, but is {}", kind(&other)));
        }
        None => return Err("the problem has no `answer`".to_owned()),
    };
    if let Some(fault) = matching.fault(&answer) {
        return Err(format!("the problem {fault}"));
    }
    // Whoever asks wants an answer.
    if object.contains_key("add_generation_prompt") {
        return Err(
            "a problem does not say `add_generation_prompt`: the model is always to answer".to_owned()
        );
    }
    match (object.shift_remove("prompt"), object.contains_key("messages")) {
        (Some(_), true) => return Err("the problem has both `messages` and `prompt`".to_owned()),
        (None, false) => return Err("the problem has neither `messages` nor `prompt`".to_owned()),
        (Some(Value::String(prompt)), false) => {
            object.insert("messages".to_owned(), Conversation::prompt(&prompt).messages.into());
        }
        (Some(other), false) => return Err(format!("the `prompt` must be a text, but is {}", kind(&other))),
        (None, true) => {}
    }
    Conversation::from_json(Value::Object(object)).map(|conversation| (conversation, answer))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn lines_are_problems() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("problems.jsonl");
        let lines = "{\"messages\": [{\"role\": \"user\", \"content\": \"1 + 1?\"}], \"answer\": \"2\"}\n\n\
            {\"prompt\": \"2 + 2?\", \"answer\": 4, \"enable_thinking\": false}\n";
        std::fs::write(&file, lines).unwrap();
        let problems = open(&file, Matching::Number).unwrap();
        let found: Vec<_> = problems.iter().map(|problem| (problem.line, problem.answer.as_str())).collect();
        assert_eq!(found, [(1, "2"), (3, "4")]);
        assert_eq!(problems[0].conversation, Conversation::prompt("1 + 1?"));
        assert_eq!(problems[1].conversation.messages, Conversation::prompt("2 + 2?").messages);
        assert_eq!(
            Value::from(problems[1].conversation.variables.clone()),
            json!({"enable_thinking": false})
        );
        std::fs::write(&file, "\n \n").unwrap();
        let empty = open(&file, Matching::Exact).unwrap_err().to_string();
        assert!(
            empty.contains("has no problems; one is `{\"messages\": [...], \"answer\": \"...\"}`"),
            "{empty}"
        );
    }

    #[test]
    fn what_is_wrong_is_said() {
        let said: Vec<_> = [
            "{",
            "{\"answer\": \"2\"}",
            "[]",
            "{\"prompt\": \"x\"}",
            "{\"prompt\": \"x\", \"answer\": null}",
            "{\"prompt\": \"x\", \"answer\": \" \"}",
            "{\"prompt\": \"x\", \"answer\": 1e16}",
            "{\"prompt\": \"x\", \"answer\": 2, \"tools\": {}}",
            "{\"prompt\": 3, \"answer\": \"2\"}",
            "{\"prompt\": \"x\", \"answer\": \"two\"}",
            "{\"prompt\": \"x\", \"messages\": [], \"answer\": 2}",
            "{\"messages\": [], \"answer\": 2}",
            "{\"prompt\": \"x\", \"answer\": 2, \"add_generation_prompt\": false}",
            "{\"messages\": [{\"role\": \"user\"}], \"answer\": 2}",
        ]
        .into_iter()
        .map(|json| format!("{json}\n  {}", read(json, Matching::Number).unwrap_err()))
        .collect();
        insta::assert_snapshot!(said.join("\n"));
    }

    proptest! {
        #[test]
        fn no_line_is_a_surprise(json in "[\\[\\]{}\",:a-z0-9 ]{0,60}|\\PC{0,40}") {
            if let Ok((conversation, answer)) = read(&json, Matching::Number) {
                prop_assert!(!conversation.messages.is_empty() && answer.contains(|c: char| c.is_ascii_digit()));
            }
        }

        #[test]
        fn questions_and_answers_come_through(question in "\\PC{0,40}", answer in "\\PC{0,20}x") {
            let json = json!({"prompt": question, "answer": answer}).to_string();
            prop_assert_eq!(read(&json, Matching::Exact), Ok((Conversation::prompt(&question), answer)));
        }
    }
}
