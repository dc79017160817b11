//! `nemort eval`, on a toy whose vocabulary has tags.

use std::path::Path;

use serde_json::{Value, json};

use crate::budget::{NEWLINE, OPEN, budgeted, thinking};
use crate::command::{failure, nemort, stdout};
use crate::toy;

const NEW: usize = 20;
const QUESTIONS: [&str; 5] = ["bcd", "f", "aa", "mlkjih", "ec"];

fn prompt(question: &str) -> Vec<u32> {
    let letters = question.bytes().map(|byte| u32::from(byte - b'a'));
    letters.chain([OPEN, NEWLINE]).collect()
}

/// What a run of the toy says of a question under a budget, by `generate`.
fn generated(file: &str, weights: &str, question: &str, budget: usize) -> Value {
    let new = NEW.to_string();
    let budget = budget.to_string();
    let output = nemort(&[
        "generate",
        file,
        "--weights",
        weights,
        "--json",
        "--prompt",
        question,
        "--max-new-tokens",
        &new,
        "--think-budget",
        &budget,
        "--think-grace",
        "0",
    ]);
    assert!(output.status.success(), "{output:?}");
    serde_json::from_str(stdout(&output)).unwrap()
}

/// Problems of which those with an even number have the right answer for a budget of 3.
fn write_problems(file: &str, weights: &str, to: &Path) {
    let lines = QUESTIONS.iter().enumerate().map(|(n, question)| {
        let answer = generated(file, weights, question, 3)["answer"].clone();
        let answer = if n % 2 == 0 { answer } else { json!("wrong") };
        format!("{}\n", json!({"prompt": question, "answer": answer}))
    });
    std::fs::write(to, lines.collect::<String>()).unwrap();
}

#[test]
fn every_problem_is_answered_under_every_budget() {
    let (dir, file) = toy::directory();
    thinking(dir.path());
    // Without it no token ends an answer.
    std::fs::remove_file(dir.path().join("generation_config.json")).unwrap();
    let (file, weights) = (file.to_str().unwrap(), dir.path().to_str().unwrap());
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (problems, save, svg) = (at("problems.jsonl"), at("save.jsonl"), at("curve.svg"));
    write_problems(file, weights, Path::new(&problems));
    let new = NEW.to_string();
    let run = |more: &[&str]| {
        let base = [
            "eval",
            file,
            "--weights",
            weights,
            "--problems",
            &problems,
            "--think-grace",
            "0",
            "--max-new-tokens",
            &new,
        ];
        let output = nemort(&[&base, more].concat());
        assert!(output.status.success(), "{output:?}");
        stdout(&output).to_owned()
    };
    std::fs::write(&save, "before").unwrap();
    let refused = ["--save", &save, "--max-seqs", "99"];
    let base = ["eval", file, "--weights", weights, "--problems", &problems];
    failure(&[&base[..], &refused].concat(), 1);
    assert_eq!(std::fs::read_to_string(&save).unwrap(), "before");
    assert!(!dir.path().join("save.jsonl.partial").exists());
    let said = run(&["--budgets", "0,3,none", "--save", &save, "--svg", &svg, "--json"]);
    let saved = std::fs::read_to_string(&save).unwrap();
    let mut saved: Vec<Value> = saved.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(saved.len(), 3 * QUESTIONS.len());
    // Those of a budget stand together, as they ended.
    for of_budget in saved.chunks_mut(QUESTIONS.len()) {
        of_budget.sort_by_key(|line| line["line"].as_u64());
    }
    // However many run at once, each says what it says alone.
    for (line, (budget, question)) in saved
        .iter()
        .zip([0, 3, usize::MAX].iter().flat_map(|budget| QUESTIONS.map(|question| (*budget, question))))
    {
        let (tokens, thoughts) = budgeted(&prompt(question), budget, NEW);
        assert_eq!((&line["tokens"], &line["thinking_tokens"]), (&json!(tokens), &json!(thoughts)), "{line}");
        assert_eq!(line["prompt"], json!(prompt(question)));
        assert_eq!(line["stopped_by"], "length");
    }
    let told: Value = serde_json::from_str(&said).unwrap();
    let scores = told["scores"].as_array().unwrap();
    assert_eq!(scores.len(), 3);
    assert_eq!(
        (&scores[1]["budget"], &scores[1]["right"], &scores[1]["cut"]),
        (&json!(3), &json!(3), &json!(5))
    );
    for (n, score) in scores.iter().enumerate() {
        let lines = &saved[n * QUESTIONS.len()..][..QUESTIONS.len()];
        let right = lines.iter().filter(|line| line["right"] == true).count();
        let hits = lines.iter().filter(|line| line["budget_hit"] == true).count();
        assert_eq!((&score["right"], &score["budget_hits"]), (&json!(right), &json!(hits)));
        assert_eq!(score["new_tokens"], json!(NEW as f64));
    }
    let drawn = std::fs::read_to_string(&svg).unwrap();
    assert!(drawn.starts_with("<svg") && drawn.contains("5 problems, greedy, exact answers"));

    let table = run(&["--budgets", "3", "--max-seqs", "1"]);
    assert!(table.contains("3          60.0 %"), "{table}");
    // This template takes no notice of any switch.
    let output =
        nemort(&["eval", file, "--weights", weights, "--problems", &problems, "--max-new-tokens", &new]);
    assert!(stdout(&output).contains("\nnone "), "{output:?}");
}

#[test]
fn what_cannot_be_answered_is_refused_before_any_work() {
    let (dir, file) = toy::directory();
    thinking(dir.path());
    let (file, weights) = (file.to_str().unwrap(), dir.path().to_str().unwrap());
    let problems = dir.path().join("problems.jsonl");
    let good = r#"{"prompt": "a", "answer": "b"}"#;
    let mut report = String::new();
    let mut refused = |lines: &str, more: &[&str], code| {
        std::fs::write(&problems, lines).unwrap();
        let base = ["eval", file, "--weights", weights, "--problems", problems.to_str().unwrap()];
        let said = failure(&[&base, more].concat(), code).replace(weights, "CHECKPOINT");
        let said = said.split("\n\n").next().unwrap_or_default().trim_end().to_owned();
        report.push_str(&format!("{lines}\n$ {}\n{said}\n\n", more.join(" ").replace(weights, "CHECKPOINT")));
    };
    refused("", &[], 1);
    refused(&format!("{good}\n{{\"prompt\": \"a\"}}"), &[], 1);
    refused(&format!("{good}\n\n{good},"), &[], 1);
    refused(good, &["--match", "number"], 1);
    refused(good, &["--budgets", "off"], 1);
    refused(good, &["--budgets", "8,none,8"], 1);
    refused(good, &["--budgets", "1000"], 1);
    refused(&format!("{good}\n{{\"prompt\": \"{}\", \"answer\": \"b\"}}", "ab".repeat(200)), &[], 1);
    refused(good, &["--max-new-tokens", "0"], 1);
    refused(good, &["--max-seqs", "1000"], 1);
    refused(good, &["--budgets", "none", "--think-grace", "4"], 1);
    refused(good, &["--max-new-tokens", "18446744073709551615"], 1);
    refused(good, &["--temperature", "1e-39"], 1);
    refused(good, &["--save", "-"], 1);
    refused(good, &["--save", problems.to_str().unwrap()], 1);
    refused(good, &["--svg", file], 1);
    refused(good, &["--save", &format!("{weights}/model.safetensors")], 1);
    refused(good, &["--save", &format!("{weights}/same"), "--svg", &format!("{weights}/./same")], 1);
    refused(good, &["--temperature", "-1"], 1);
    refused(good, &["--svg", "/nowhere/curve.svg"], 1);
    refused(good, &["--save", "/nowhere/save.jsonl"], 1);
    for budget in ["-1", "x", "1.5", ""] {
        refused(good, &["--budgets", budget], 2);
    }
    refused(good, &["--match", "roughly"], 2);
    std::fs::remove_file(dir.path().join("tokenizer_config.json")).unwrap();
    refused(good, &[], 1);
    insta::assert_snapshot!(report);
}
