use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use nemort::session::{Deadline, Finish, Grown, Hook, Request, Sampling, Session, SessionError, Verdict};

use crate::engine::engine;
use crate::toy::{continued, next};

/// Wants every token.
fn on(_token: u32) -> ControlFlow<()> {
    ControlFlow::Continue(())
}

#[test]
fn one_prompt_longer_than_a_chunk() {
    let mut engine = engine();
    let mut session = Session::new(&mut engine);
    let prompt: Vec<u32> = (0..75).map(|n| n * 5 % 16).collect();
    let mut seen = Vec::new();
    let each = |token| {
        seen.push(token);
        ControlFlow::Continue(())
    };
    let (tokens, finish) = session.generate(Request::new(prompt.clone(), 60), each).unwrap();
    assert_eq!(tokens, continued(&prompt, 60));
    assert_eq!((seen, finish), (tokens, Finish::Length));
    assert!(session.is_idle());
}

#[test]
fn many_sequences_share_the_engine_and_none_notices() {
    let mut engine = engine();
    let mut session = Session::new(&mut engine);
    // More sequences than slots, of all lengths: some wait, steps are mixed, slots are used again.
    let prompts: Vec<Vec<u32>> =
        (1..12).map(|n| (0..n * n % 23 + 1).map(|k| (k * 3 + n) % 16).collect()).collect();
    let mut ids = Vec::new();
    for (n, prompt) in prompts.iter().enumerate() {
        ids.push(session.submit(Request::new(prompt.clone(), 5 + n * 7)).unwrap());
    }
    let mut tokens = vec![Vec::new(); ids.len()];
    while !session.is_idle() {
        for event in session.advance().unwrap() {
            let at = ids.iter().position(|id| *id == event.sequence).unwrap();
            tokens[at].extend(event.token);
        }
    }
    for (n, prompt) in prompts.iter().enumerate() {
        assert_eq!(tokens[n], continued(prompt, 5 + n * 7), "sequence {n}");
    }
}

/// Forces two tokens after the third, and stops after the sixth.
struct Script;

impl Hook for Script {
    fn after(&mut self, token: u32, grown: Grown<'_>) -> Verdict {
        assert_eq!(grown.generated.last(), Some(&token));
        match grown.generated.len() {
            3 => Verdict::Force(vec![7, 9]),
            6 => Verdict::Stop("script".to_owned()),
            _ => Verdict::Continue,
        }
    }
}

#[test]
fn hooks_force_and_stop() {
    let mut engine = engine();
    let mut session = Session::new(&mut engine);
    let request = Request { hooks: vec![Box::new(Script)], ..Request::new(vec![1, 2], 20) };
    let (tokens, finish) = session.generate(request, on).unwrap();
    let mut wanted = continued(&[1, 2], 3);
    wanted.extend([7, 9]);
    wanted.push(next(&[&[1, 2], &wanted[..]].concat()));
    assert_eq!((tokens, finish.name()), (wanted, "script"));
}

/// Allows some steps, and counts how often it is asked.
struct Steps {
    left: usize,
    asked: Arc<AtomicUsize>,
}

impl Hook for Steps {
    fn before(&mut self) -> ControlFlow<String> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        match self.left.checked_sub(1) {
            Some(left) => {
                self.left = left;
                ControlFlow::Continue(())
            }
            None => ControlFlow::Break("steps".to_owned()),
        }
    }

    fn after(&mut self, _token: u32, _grown: Grown<'_>) -> Verdict {
        Verdict::Continue
    }
}

#[test]
fn a_long_prompt_stops_between_chunks() {
    let mut engine = engine();
    let mut session = Session::new(&mut engine);
    // Chunks have eight tokens, so the prompt takes ten steps, and the last gives the first token.
    for (steps, new) in [(3, 0), (9, 0), (10, 1), (12, 3)] {
        let asked = Arc::new(AtomicUsize::new(0));
        let hook = Steps { left: steps, asked: Arc::clone(&asked) };
        let request = Request { hooks: vec![Box::new(hook)], ..Request::new(vec![3; 75], 20) };
        let (tokens, finish) = session.generate(request, on).unwrap();
        assert_eq!((tokens, finish.name()), (continued(&[3; 75], new), "steps"));
        assert_eq!(asked.load(Ordering::Relaxed), steps + 1);
        assert!(session.is_idle());
    }
    let late = Box::new(Deadline::after(Duration::ZERO));
    let request = Request { hooks: vec![late], ..Request::new(vec![3; 75], 20) };
    let (tokens, finish) = session.generate(request, on).unwrap();
    assert_eq!((tokens.len(), finish), (0, Finish::Hook(Deadline::REASON.to_owned())));
}

#[test]
fn one_that_stops_or_waits_too_long_leaves_the_others_alone() {
    let mut engine = engine();
    let mut session = Session::new(&mut engine);
    let stopping = |left| -> Vec<Box<dyn Hook>> { vec![Box::new(Steps { left, asked: Arc::default() })] };
    // Three slots: the last of these waits for one in vain.
    let mut ids = Vec::new();
    for hooks in [vec![], stopping(2), vec![], stopping(4)] {
        ids.push(session.submit(Request { hooks, ..Request::new(vec![1; 60], 9) }).unwrap());
    }
    let mut ends = vec![None; ids.len()];
    let mut tokens = vec![Vec::new(); ids.len()];
    while !session.is_idle() {
        for event in session.advance().unwrap() {
            let at = ids.iter().position(|id| *id == event.sequence).unwrap();
            tokens[at].extend(event.token);
            ends[at] = ends[at].take().or(event.finish.clone());
        }
    }
    let stopped = Some(Finish::Hook("steps".to_owned()));
    assert_eq!(ends, [Some(Finish::Length), stopped.clone(), Some(Finish::Length), stopped]);
    for (n, tokens) in tokens.iter().enumerate() {
        assert_eq!(*tokens, if n % 2 == 0 { continued(&[1; 60], 9) } else { vec![] });
    }
}

#[test]
fn whoever_asks_may_want_no_more() {
    let mut engine = engine();
    let mut session = Session::new(&mut engine);
    let mut seen = 0;
    let three = |_| {
        seen += 1;
        if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    let (tokens, finish) = session.generate(Request::new(vec![1, 2], 20), three).unwrap();
    assert_eq!((tokens, finish), (continued(&[1, 2], 3), Finish::Caller));
    // Its slot is free again, as are those of what is cancelled while it waits or runs.
    for _ in 0..3 {
        let ids: Vec<_> = (0..5).map(|_| session.submit(Request::new(vec![1, 2], 20)).unwrap()).collect();
        session.advance().unwrap();
        assert!(ids.iter().all(|id| session.cancel(*id)));
        assert!(!session.cancel(ids[0]) && session.is_idle());
    }
    assert_eq!(session.generate(Request::new(vec![1, 2], 4), on).unwrap().0, continued(&[1, 2], 4));
}

#[test]
fn a_request_runs_alone_only_in_an_idle_session() {
    let mut engine = engine();
    let mut session = Session::new(&mut engine);
    let other = session.submit(Request::new(vec![5], 3)).unwrap();
    let refused = session.generate(Request::new(vec![1, 2], 4), on).unwrap_err();
    assert_eq!(refused, SessionError::Busy);
    let mut tokens = Vec::new();
    while !session.is_idle() {
        let events = session.advance().unwrap();
        assert!(events.iter().all(|event| event.sequence == other && event.check().is_ok()));
        tokens.extend(events.iter().filter_map(|event| event.token));
    }
    assert_eq!(tokens, continued(&[5], 3));
    session.generate(Request::new(vec![1, 2], 4), on).unwrap();
}

#[test]
fn an_end_token_is_the_last() {
    let mut engine = engine();
    let mut session = Session::new(&mut engine);
    let all = continued(&[1, 2], 20);
    let end = all[4];
    let until = all.iter().position(|token| *token == end).unwrap();
    let request = Request { end: vec![99, end], ..Request::new(vec![1, 2], 20) };
    let (tokens, finish) = session.generate(request, on).unwrap();
    assert_eq!((&tokens[..], finish), (&all[..=until], Finish::EndOfText));
}

#[test]
fn the_last_token_needs_no_room() {
    let mut engine = engine();
    let mut session = Session::new(&mut engine);
    for (prompt, new) in [(200, 57), (256, 1), (1, 256)] {
        let wanted = continued(&vec![1; prompt], new);
        let (tokens, finish) = session.generate(Request::new(vec![1; prompt], new), on).unwrap();
        assert_eq!((tokens, finish), (wanted, Finish::Length), "{prompt} and {new}");
    }
}

#[test]
fn requests_that_can_never_run_are_refused() {
    let mut engine = engine();
    let mut session = Session::new(&mut engine);
    let mut message = |request| session.submit(request).unwrap_err().to_string();
    assert_eq!(message(Request::new(vec![], 1)), "the prompt has no tokens");
    assert_eq!(message(Request::new(vec![1], 0)), "at least one new token must be asked for");
    assert_eq!(message(Request::new(vec![16], 1)), "the prompt's token 16 is not in the vocabulary of 16");
    let long = message(Request::new(vec![1; 200], 58));
    assert_eq!(long, "200 prompt tokens and 58 new ones do not fit the context of 256");
    let full = message(Request::new(vec![1; 257], 1));
    assert_eq!(full, "257 prompt tokens and 1 new one do not fit the context of 256");
    let hot = Sampling { temperature: -1.0, ..Sampling::default() };
    let hot = message(Request { sampling: hot, ..Request::new(vec![1], 1) });
    assert_eq!(hot, "temperature is -1, but must be finite and at least 0");
}
