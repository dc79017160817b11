use std::process::Command;

use proptest::prelude::*;

use super::*;

/// The object that the system's C compiler makes of `source`.
pub(in crate::device::host) fn compile(source: &str, flags: &[&str]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let (input, output) = (dir.path().join("k.c"), dir.path().join("k.o"));
    std::fs::write(&input, source).unwrap();
    let status = Command::new("cc")
        .args(["-c", "-O1", "-ffreestanding", "-fno-stack-protector", "-fcf-protection=none"])
        .args(flags)
        .args(["-o".as_ref(), output.as_os_str(), input.as_os_str()])
        .status()
        .unwrap();
    assert!(status.success());
    std::fs::read(&output).unwrap()
}

const KERNELS: &str = r"
    typedef unsigned int u32; typedef unsigned long u64;
    struct dims { u64 tokens, seqs, rows, pages; };
    const float table[4] = {1.5f, 2.5f, 3.5f, 4.5f};
    const float *const pointer = &table[2];
    __attribute__((noinline)) static float pick(u32 i) { return table[i & 3] + *pointer; }
    void first(char **args, const struct dims *dims, u32 thread, u32 threads) {
        float *out = (float *)args[1];
        const float *in = (const float *)args[0];
        for (u64 i = thread; i < dims->tokens; i += threads) out[i] = in[i] + pick((u32)i);
    }
    void second(char **args, const struct dims *dims, u32 thread, u32 threads) {
        first(args, dims, thread, threads);
    }";

fn message(source: &str, flags: &[&str]) -> String {
    load(&compile(source, flags)).unwrap_err().to_string()
}

#[test]
fn kernels_with_calls_and_constants_run() {
    let code = load(&compile(KERNELS, &["-fPIC", "-fvisibility=hidden"])).unwrap();
    for symbol in ["first", "second"] {
        let kernel = code.function(symbol).unwrap();
        let input = [10.0_f32, 20.0, 30.0, 40.0, 50.0];
        let mut output = [0.0_f32; 5];
        let args = [input.as_ptr().cast_mut().cast::<u8>(), output.as_mut_ptr().cast::<u8>()];
        let dims = StepDims { tokens: 5, ..StepDims::default() };
        for thread in 0..2 {
            // SAFETY: the kernel above reads five floats and writes five.
            unsafe { kernel(args.as_ptr(), &dims, thread, 2) };
        }
        assert_eq!(output, [15.0, 26.0, 37.0, 48.0, 55.0]);
    }
    let missing = code.function("third").unwrap_err().to_string();
    assert_eq!(missing, "the kernel object has no function `third`");
}

#[test]
fn what_needs_a_linker_is_refused_by_name() {
    let call = "extern int helper(int); int f(int x) { return helper(x) + 1; }";
    assert_eq!(
        message(call, &["-fPIC", "-fvisibility=hidden"]),
        "the kernel object refers to the undefined symbol `helper`; there is nothing to link it with"
    );
    let writable = "int counter = 1; int f(void) { return ++counter; }";
    assert!(message(writable, &["-fvisibility=hidden"]).contains("writable section `.data`"));
    // Visible data in position-independent code goes through a global offset table.
    let got = "const int value = 3; const int *f(void) { return &value; }";
    let message = message(got, &["-fPIC"]);
    assert!(message.contains("GOTPCREL") && message.contains("`.text`"), "{message}");
}

#[test]
fn a_32_bit_address_must_fit() {
    let source = "static const int table[4] = {1, 2, 3, 4}; int f(long i) { return table[i]; }";
    let message = message(source, &["-fno-pic", "-mcmodel=small"]);
    assert!(message.contains("R_X86_64_32S") && message.contains("does not fit"), "{message}");
}

#[test]
fn other_files_are_refused() {
    assert!(load(b"hello").unwrap_err().to_string().contains("malformed"));
    let mut arm = compile("int f(void) { return 1; }", &[]);
    arm[18] = 183;
    assert!(load(&arm).unwrap_err().to_string().contains("not a relocatable x86-64 ELF file"));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn damage_never_panics(at in any::<prop::sample::Index>(), value in any::<u8>(), cut in any::<prop::sample::Index>()) {
        static OBJECT: std::sync::OnceLock<Vec<u8>> = std::sync::OnceLock::new();
        let good = OBJECT.get_or_init(|| compile(KERNELS, &["-fPIC", "-fvisibility=hidden"]));
        let mut bytes = good.clone();
        let at = at.index(bytes.len());
        bytes[at] = value;
        let _ = load(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        let _ = load(&bytes);
    }
}
