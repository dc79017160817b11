use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};

use serde_json::Value;

use nemo_ir::artifact;

use crate::gpu;
use crate::toy::{self, continued};

pub fn nemort(arguments: &[&str]) -> Output {
    // A GPU that the machine may have stays out of it.
    let mut command = Command::new(env!("CARGO_BIN_EXE_nemort"));
    command.env("CUDA_VISIBLE_DEVICES", "").args(arguments).output().unwrap()
}

pub fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).unwrap()
}

/// Standard error of a command that must fail with `code`.
pub fn failure(arguments: &[&str], code: i32) -> String {
    let output = nemort(arguments);
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(code == 2 || (stdout(&output).is_empty() && stderr.lines().count() == 1), "{stderr}");
    stderr
}

fn letters(tokens: &[u32]) -> String {
    tokens.iter().map(|token| char::from(b'a' + *token as u8)).collect()
}

/// Paths of a toy artifact and checkpoint, as arguments.
fn with_toy(check: impl FnOnce(&str, &str, &Path)) {
    let (dir, file) = toy::directory();
    check(file.to_str().unwrap(), dir.path().to_str().unwrap(), dir.path());
}

#[test]
fn templates_know_the_local_day() {
    with_toy(|file, weights, dir| {
        let template = "{{ 'abcdefghijklm'[(strftime_now('%d') | int) % 13] }}";
        let config = serde_json::json!({"chat_template": template}).to_string();
        std::fs::write(dir.join("tokenizer_config.json"), config).unwrap();
        // A day apart, whenever this runs.
        let [east, west] = ["EAST-14", "WEST+10"].map(|zone| {
            let mut command = Command::new(env!("CARGO_BIN_EXE_nemort"));
            command.env("CUDA_VISIBLE_DEVICES", "").env("TZ", zone);
            command.args(["generate", file, "--weights", weights, "--ignore-eos", "--prompt", "x"]);
            let output = command.args(["--max-new-tokens", "9"]).output().unwrap();
            assert!(output.status.success(), "{output:?}");
            stdout(&output).to_owned()
        });
        assert_ne!(east, west);
    });
}

#[test]
fn generate_prints_text() {
    with_toy(|file, weights, dir| {
        let run = |more: &[&str]| {
            let output = nemort(&[&["generate", file, "--weights", weights, "--ignore-eos"], more].concat());
            assert!(output.status.success(), "{output:?}");
            stdout(&output).to_owned()
        };
        let raw = run(&["--prompt", "bcd", "--raw", "--max-new-tokens", "9"]);
        let wanted = letters(&continued(&[1, 2, 3], 9));
        assert_eq!(raw, wanted.clone() + "\n");
        // The template puts a `p` before the message.
        let chat = run(&["--prompt", "bcd", "--max-new-tokens", "9"]);
        assert_eq!(chat, letters(&continued(&[15, 1, 2, 3], 9)) + "\n");
        let messages = dir.join("chat.json");
        std::fs::write(&messages, r#"[{"role": "user", "content": "bcd"}]"#).unwrap();
        assert_eq!(run(&["--chat", messages.to_str().unwrap(), "--max-new-tokens", "9"]), chat);
        let stop = &wanted[2..4];
        let stopped = run(&["--tokens", "1,2,3", "--max-new-tokens", "9", "--stop", stop]);
        assert_eq!(stopped, wanted[..wanted.find(stop).unwrap()].to_owned() + "\n");
        std::fs::remove_file(dir.join("tokenizer.json")).unwrap();
        let ids: Vec<_> = continued(&[1, 2, 3], 4).iter().map(u32::to_string).collect();
        assert_eq!(run(&["--tokens", "1,2,3", "--max-new-tokens", "4"]).trim(), ids.join(" "));
    });
}

/// `nemort chat` that waits for lines.
fn chatting(file: &str, weights: &str, more: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_nemort"))
        .env("CUDA_VISIBLE_DEVICES", "")
        .args(["chat", file, "--weights", weights])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// `nemort chat` with these lines.
pub fn chat(file: &str, weights: &str, lines: &str, more: &[&str]) -> Output {
    let mut child = chatting(file, weights, more);
    // Options that are refused end it before it reads a line.
    let _ = child.stdin.take().unwrap().write_all(lines.as_bytes());
    child.wait_with_output().unwrap()
}

#[test]
fn a_signal_between_answers_ends_a_script() {
    with_toy(|file, weights, _| {
        let mut child = chatting(file, weights, &["--max-new-tokens", "4"]);
        let mut lines = child.stdin.take().unwrap();
        lines.write_all(b"bcd\n").unwrap();
        let mut answers = BufReader::new(child.stdout.take().unwrap());
        // The line's end comes after the answer.
        answers.read_line(&mut String::new()).unwrap();
        let kill = format!("kill -INT {}", child.id());
        assert!(Command::new("sh").args(["-c", &kill]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(130));
    });
}

#[test]
fn chat_answers_line_by_line() {
    with_toy(|file, weights, _| {
        // The template puts a `p` before each message, earlier ones and answers too.
        let first = continued(&[15, 1, 2, 3], 4);
        let asked = [&[15, 1, 2, 3, 15], first.as_slice(), &[15, 5]].concat();
        let wanted = format!("{}\n{}\n", letters(&first), letters(&continued(&asked, 4)));
        let output = chat(file, weights, "bcd\n\nf", &["--max-new-tokens", "4"]);
        assert!(output.status.success(), "{output:?}");
        assert_eq!(stdout(&output), wanted);
        let notes = String::from_utf8(output.stderr).unwrap();
        assert_eq!(notes, "[cut: an answer may have no more tokens]\n".repeat(2));
        let forgotten = chat(file, weights, "bcd\n/clear\nf\n/quit\nbcd", &["--max-new-tokens", "4"]);
        let wanted = format!("{}\n{}\n", letters(&first), letters(&continued(&[15, 5], 4)));
        assert_eq!(stdout(&forgotten), wanted);
    });
}

#[test]
fn chat_says_what_is_wrong() {
    with_toy(|file, weights, dir| {
        let says = |lines: &str, more: &[&str]| {
            let output = chat(file, weights, lines, more);
            assert_eq!(output.status.code(), Some(1), "{output:?}");
            String::from_utf8(output.stderr).unwrap()
        };
        assert!(says("/frobnicate", &[]).contains("there is no command `/frobnicate`"));
        assert!(says("/think", &[]).contains("no switch for thinking that is known"));
        let long = says("bcdefg", &["--max-context", "4"]);
        assert!(
            long.contains("has 7 tokens, and the context 4; shorten the question, or raise --max-context")
        );
        let long = says(&"b".repeat(256), &[]);
        assert!(
            long.contains("the context 256; shorten the question, or compile with a larger --max-context")
        );
        assert!(says("", &["--max-context", "257"]).contains("--max-context"));
        assert!(says("", &["--top-p", "0"]).contains("top-p is 0"));
        std::fs::write(dir.join("chat_template.jinja"), "\n{{ frobnicate() }}").unwrap();
        assert!(says("", &[]).contains("chat_template.jinja` is wrong at line 2: frobnicate is unknown"));
    });
}

#[test]
fn generate_prints_one_json_document() {
    with_toy(|file, weights, _| {
        let run = |more: &[&str]| -> Value {
            let output = nemort(
                &[&["generate", file, "--weights", weights, "--json", "--raw", "--prompt", "bcd"], more]
                    .concat(),
            );
            assert!(output.status.success(), "{output:?}");
            serde_json::from_str(stdout(&output)).unwrap()
        };
        let all = run(&["--max-new-tokens", "9", "--ignore-eos"]);
        let tokens = continued(&[1, 2, 3], 9);
        assert_eq!(all["tokens"], serde_json::json!(tokens));
        assert_eq!((&all["text"], &all["answer"]), (&letters(&tokens).into(), &letters(&tokens).into()));
        assert_eq!((&all["stopped_by"], &all["prompt_tokens"]), (&"length".into(), &3.into()));
        assert_eq!(
            (&all["thinking"], &all["thinking_tokens"], &all["answer_tokens"]),
            (&"".into(), &0.into(), &9.into())
        );
        assert_eq!(all["budget_hit"], false);
        for phase in ["load", "prefill", "decode"] {
            assert!(all["seconds"][phase].as_f64().unwrap() >= 0.0);
        }
        assert_eq!(run(&["--deadline", "0ms"])["stopped_by"], "deadline");
        let stopped = run(&["--stop", &letters(&tokens)[1..3], "--ignore-eos"]);
        assert_eq!(
            (&stopped["stopped_by"], &stopped["text"]),
            (&"stop".into(), &letters(&tokens[..1]).into())
        );
    });
}

#[test]
fn generate_tells_the_model_whether_to_think() {
    with_toy(|file, weights, dir| {
        let template =
            "{% for m in messages %}{{ m.content }}{% endfor %}{{ 'k' if enable_thinking else 'l' }}";
        std::fs::write(dir.join("chat_template.jinja"), template).unwrap();
        let tokens = |more: &[&str]| {
            let base =
                ["generate", file, "--weights", weights, "--json", "--prompt", "b", "--max-new-tokens", "5"];
            let output = nemort(&[&base, more].concat());
            assert!(output.status.success(), "{output:?}");
            serde_json::from_str::<Value>(stdout(&output)).unwrap()["tokens"].clone()
        };
        let after = |last: u32| serde_json::json!(continued(&[1, last], 5));
        assert_ne!(after(10), after(11));
        assert_eq!((tokens(&["--think", "on"]), tokens(&["--think", "off"])), (after(10), after(11)));
        assert_eq!(tokens(&[]), after(11));
        std::fs::write(dir.join("chat_template.jinja"), "{{ messages[0].content }}").unwrap();
        let ask = |prompt: &[&str], think: &str, code| {
            failure(&[&["generate", file, "--weights", weights, "--think", think], prompt].concat(), code)
        };
        let said = ask(&["--prompt", "b"], "off", 1);
        assert!(
            said.contains("--think cannot be said to this model: its chat template takes no notice"),
            "{said}"
        );
        assert!(ask(&["--prompt", "b", "--raw"], "on", 2).contains("cannot be used with"));
        assert!(ask(&["--tokens", "1"], "on", 2).contains("cannot be used with"));
        assert!(ask(&["--prompt", "b"], "maybe", 2).contains("[possible values: on, off]"));
    });
}

#[test]
fn generate_says_what_is_wrong() {
    with_toy(|file, weights, dir| {
        let generate =
            |more: &[&str], code| failure(&[&["generate", file, "--weights", weights], more].concat(), code);
        assert!(generate(&[], 2).contains("required"));
        assert!(generate(&["--prompt", "a", "--tokens", "1"], 2).contains("cannot be used with"));
        assert!(generate(&["--raw", "--tokens", "1"], 2).contains("cannot be used with"));
        assert!(generate(&["--prompt", "a", "--deadline", "soon"], 2).contains("a time is a number"));
        assert!(
            generate(&["--prompt", "a", "--device", "cuda"], 1)
                .contains("has no target for a GPU; it has `x86-64`")
        );
        for device in ["tpu", "cuda:", "cuda:x", "host:1"] {
            let message = generate(&["--prompt", "a", "--device", device], 2);
            assert!(message.contains("--device <DEVICE>"), "{message}");
        }
        assert!(generate(&["--tokens", "99"], 1).contains("token 99 is not in the vocabulary of 16"));
        assert!(
            generate(&["--tokens", "1", "--max-new-tokens", "257"], 1)
                .contains("do not fit the context of 256")
        );
        assert!(generate(&["--tokens", "1", "--temperature", "-1"], 1).contains("temperature is -1"));
        assert!(
            generate(&["--tokens", "1", "--target", "sm_90"], 1)
                .contains("has no target `sm_90`; it has `x86-64`")
        );
        std::fs::write(dir.join("tokenizer_config.json"), "{}").unwrap();
        assert!(generate(&["--prompt", "a"], 1).contains("has no chat template"));
        std::fs::write(dir.join("tokenizer.json"), "{").unwrap();
        assert!(generate(&["--prompt", "a", "--raw"], 1).contains("tokenizer.json`"));
        std::fs::write(file, "hello").unwrap();
        assert!(generate(&["--tokens", "1"], 1).contains("not a nemoc artifact"));
        std::fs::remove_file(file).unwrap();
        assert!(generate(&["--tokens", "1"], 1).contains("cannot read artifact"));
    });
}

#[test]
fn logits_of_both_programs_agree() {
    with_toy(|file, weights, dir| {
        let tokens: Vec<String> = (0..20).map(|n| (n * 3 % 16).to_string()).collect();
        let run = |more: &[&str]| {
            let path = dir.join("logits.safetensors");
            let base = [
                "logits",
                file,
                "--weights",
                weights,
                "--tokens",
                &tokens.join(","),
                "-o",
                path.to_str().unwrap(),
            ];
            let output = nemort(&[&base, more].concat());
            assert!(output.status.success(), "{output:?}");
            std::fs::read(path).unwrap()
        };
        let bytes = run(&[]);
        let parsed = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let logits = parsed.tensor("logits").unwrap();
        assert_eq!((logits.dtype(), logits.shape()), (safetensors::Dtype::F32, &[20, 16][..]));
        assert_eq!(run(&["--decode"]), bytes);
        let long = vec!["1"; 300].join(",");
        let message = failure(&["logits", file, "--weights", weights, "--tokens", &long, "-o", "x"], 1);
        assert!(message.contains("300 tokens do not fit the context of 256"), "{message}");
    });
}

#[test]
fn bench_reports_what_scripts_read() {
    with_toy(|file, _, _| {
        let base = [
            "bench",
            file,
            "--random-weights",
            "--prompt",
            "20",
            "--new",
            "5",
            "--seqs",
            "2",
            "--threads",
            "1",
        ];
        let output = nemort(&[&base[..], &["--json", "--repeat", "1", "--profile"]].concat());
        assert!(output.status.success(), "{output:?}");
        let report: Value = serde_json::from_str(stdout(&output)).unwrap();
        for field in [
            "prefill_tok_s",
            "decode_tok_s",
            "decode_gb_s",
            "read_bandwidth_gb_s",
            "bytes_per_token",
            "peak_rss",
        ] {
            assert!(report[field].as_f64().unwrap() > 0.0, "{field}: {report}");
        }
        // Without the buffer of 1 GiB that bandwidth is measured with.
        assert!(report["peak_rss"].as_f64().unwrap() < f64::from(1 << 29), "{report}");
        // One row of the table and the slot state twice, half the vector of one element, and 22 of 64
        // cached floats.
        assert_eq!(report["bytes_per_token"], 4.0 + 24.0 + 4.0 + 88.0);
        let profile = report["profile"].as_array().unwrap();
        assert_eq!(profile.len(), 10);
        let decode = profile.iter().find(|row| row["phase"] == "decode" && row["op"] == "scan").unwrap();
        assert_eq!((&decode["block"], &decode["kernel"]), (&"layer".into(), &"toy_scan".into()));
        assert_eq!((&decode["first_tokens"], &decode["last_tokens"]), (&1.into(), &3.into()));
        assert!(decode["calls"].as_u64().unwrap() > 0 && decode["calls"] == decode["count"], "{decode}");
        assert!(failure(&["bench", file, "--random-weights", "--new", "1"], 1).contains("--new at least 2"));
        assert!(failure(&["bench", file], 2).contains("required"));
    });
}

#[test]
fn verify_passes_what_is_right_and_names_what_is_not() {
    with_toy(|file, weights, dir| {
        let output = nemort(&["verify", file, "--weights", weights]);
        assert!(output.status.success(), "{output:?}");
        let report = stdout(&output);
        assert!(report.contains("digests right") && report.contains("5 kernels"), "{report}");
        assert!(report.contains("2 tensors") && report.contains("would run x86-64"), "{report}");
        std::fs::write(
            dir.join("model.safetensors"),
            toy::safetensors(&[("scale", "F16", &[1], vec![0; 2])]),
        )
        .unwrap();
        let missing = nemort(&["verify", file, "--weights", weights]);
        let stderr = String::from_utf8(missing.stderr).unwrap();
        assert!(stderr.contains("has no tensor `backbone.embed.weight` or `embed.weight`"), "{stderr}");
        let mut bytes = std::fs::read(file).unwrap();
        let at = bytes.windows(4).position(|window| window == b"\x7fELF").unwrap();
        bytes[at + 100] ^= 1;
        std::fs::write(file, bytes).unwrap();
        assert!(failure(&["verify", file], 1).contains("entry `kernels/x86-64.o`: blake3 is"));
    });
}

#[test]
fn a_closed_pipe_is_no_failure() {
    with_toy(|file, weights, _| {
        let mut child = Command::new(env!("CARGO_BIN_EXE_nemort"))
            .args([
                "generate",
                file,
                "--weights",
                weights,
                "--tokens",
                "1",
                "--ignore-eos",
                "--max-new-tokens",
                "200",
            ])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
    });
}

#[test]
fn help_and_version() {
    let help = nemort(&["--help"]);
    assert!(help.status.success());
    for command in ["generate", "logits", "bench", "verify"] {
        assert!(stdout(&help).contains(command), "{command}");
    }
    assert!(stdout(&nemort(&["--version"])).starts_with("nemort 0."));
}

#[test]
fn without_a_gpu_what_has_a_cpu_target_runs_all_the_same() {
    with_toy(|file, weights, _| {
        let mut contents = toy::contents(&[("x86-64", &["sse2"])]);
        contents.targets.insert(0, gpu::contents().targets.remove(0));
        artifact::write(Path::new(file), &contents).unwrap();
        fn generate<'a>(file: &'a str, weights: &'a str, more: &[&'a str]) -> Vec<&'a str> {
            let base = ["generate", file, "--weights", weights, "--tokens", "1,2,3"];
            [&base[..], &["--ignore-eos", "--max-new-tokens", "5"], more].concat()
        }
        let generate = |more: &[&'static str]| generate(file, weights, more);
        let wanted = letters(&continued(&[1, 2, 3], 5)) + "\n";
        for more in [&[][..], &["--device", "host"], &["--target", "x86-64"]] {
            let output = nemort(&generate(more));
            assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
            assert_eq!(stdout(&output), wanted);
        }
        // Which of the two it is, the machine decides; there is none that can be seen.
        let (no_driver, no_gpu) = ("this machine has no NVIDIA driver", "the NVIDIA driver sees none");
        for device in ["cuda", "cuda:99"] {
            let message = failure(&generate(&["--device", device]), 1);
            assert!(message.starts_with("error: there is no GPU"), "{message}");
            assert!(message.contains(no_driver) || message.contains(no_gpu), "{message}");
        }
        let message = failure(&generate(&["--target", "sm_86"]), 1);
        assert!(message.contains("does not run here: target `sm_86` needs a GPU"), "{message}");
        let message = failure(&generate(&["--target", "x86-64", "--device", "cuda"]), 1);
        assert!(message.contains("target `x86-64` is for a CPU"), "{message}");

        let report = nemort(&["verify", file, "--weights", weights]);
        assert!(report.status.success(), "{report:?}");
        let report = stdout(&report);
        let wanted =
            "no GPU here runs it, as it needs compute capability 8.6 or later, driver 520 or later (PTX 7.8)";
        assert!(report.contains("sm_86: 5 kernels in") && report.contains(wanted), "{report}");
        assert!(report.contains("would run x86-64\n"), "{report}");
        contents.targets[0].plan.kernels[0].symbol = "absent".to_owned();
        artifact::write(Path::new(file), &contents).unwrap();
        let failed = nemort(&["verify", file]);
        let message = String::from_utf8(failed.stderr).unwrap();
        assert!(message.contains("target `sm_86`: its PTX has no kernel `absent`"), "{message}");
    });
}
