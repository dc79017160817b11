//! Matrix instructions and bulk copies of sm_90a: wgmma, the tensor memory accelerator, and the barriers in shared memory
//! that tell when a copy has landed.

use inkwell::types::{BasicType, BasicTypeEnum};

use super::emit::Emit;
use crate::emit::{Any, Float, Int, Ptr, built};

/// Address space of shared memory in a cluster, of which a CTA's own is a part.
const SHARED_CLUSTER: u16 = 7;

impl<'c> Emit<'c, '_> {
    /// Makes 8 bytes of shared memory a barrier that waits for `arrivals` a phase.
    pub fn mbarrier_init(&self, barrier: Ptr<'c>, arrivals: u32) {
        self.effect("llvm.nvvm.mbarrier.init.shared", &[], &[barrier.into(), self.word(arrivals).into()]);
    }

    /// Makes initialised barriers visible to the copies of the tensor memory accelerator.
    pub fn mbarriers_ready(&self) {
        self.asm_effect("fence.proxy.async;", "~{memory}", &[]);
    }

    /// Arrives, and lets the phase wait for so many bytes of copies, too.
    pub fn mbarrier_expect(&self, barrier: Ptr<'c>, bytes: Int<'c>) {
        let text = "mbarrier.arrive.expect_tx.shared::cta.b64 _, [$0], $1;";
        self.asm_effect(text, "l,r,~{memory}", &[barrier.into(), bytes.into()]);
    }

    /// Arrives.
    pub fn mbarrier_arrive(&self, barrier: Ptr<'c>) {
        self.asm_effect("mbarrier.arrive.shared::cta.b64 _, [$0];", "l,~{memory}", &[barrier.into()]);
    }

    /// Waits until the phase of that parity (i32, 0 or 1) has ended.
    pub fn mbarrier_wait(&self, barrier: Ptr<'c>, parity: Int<'c>) {
        let function = self.function;
        let (again, after) = (
            self.context.append_basic_block(function, "wait"),
            self.context.append_basic_block(function, "landed"),
        );
        built(self.builder.build_unconditional_branch(again));
        self.builder.position_at_end(again);
        let text =
            "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [$1], $2; selp.u32 $0, 1, 0, p; }";
        let i32 = self.context.i32_type();
        let call = self.asm(text, "=r,l,r,~{memory}", Some(i32), &[barrier.into(), parity.into()]);
        let ended = call.try_as_basic_value().basic().expect("it gives a value").into_int_value();
        let ended = self.cmp(inkwell::IntPredicate::NE, ended, self.word(0));
        built(self.builder.build_conditional_branch(ended, after, again));
        self.builder.position_at_end(after);
    }

    /// Copies a box of a tensor map, from column `x` and row `y` (i32) on, to shared memory; the barrier is told of its bytes
    /// when they are there.
    pub fn copy_box(&self, shared: Ptr<'c>, map: Ptr<'c>, (x, y): (Int<'c>, Int<'c>), barrier: Ptr<'c>) {
        let cluster = self.context.ptr_type(inkwell::AddressSpace::from(SHARED_CLUSTER));
        let target = built(self.builder.build_address_space_cast(shared, cluster, ""));
        let bit = |value| self.context.bool_type().const_int(value, false).into();
        let operands = [
            target.into(),
            barrier.into(),
            map.into(),
            x.into(),
            y.into(),
            self.context.i16_type().const_zero().into(),
            self.int(0).into(),
            bit(0),
            bit(0),
            self.word(0).into(),
        ];
        self.effect("llvm.nvvm.cp.async.bulk.tensor.g2s.tile.2d", &[], &operands);
    }

    /// Orders what this thread wrote to shared memory before what wgmma reads.
    pub fn proxy_fence(&self) {
        self.asm_effect("fence.proxy.async.shared::cta;", "~{memory}", &[]);
    }

    /// Between the batches of a loop, whose sums nothing but wgmma writes.
    pub fn wgmma_fence(&self) {
        self.effect("llvm.nvvm.wgmma.fence.sync.aligned", &[], &[]);
    }

    /// Before the first wgmma that uses registers which were written by something else: sums, and left operands. It gives
    /// them back, so that LLVM can write none of them after the fence, which the instruction set leaves undefined.
    pub fn wgmma_begin(&self, registers: &[Any<'c>]) -> Vec<Any<'c>> {
        self.pass("wgmma.fence.sync.aligned;", registers)
    }

    /// Waits until no group is under way, and gives the sums, which LLVM cannot read before then.
    pub fn wgmma_end(&self, sums: &[Float<'c>]) -> Vec<Float<'c>> {
        let sums: Vec<_> = sums.iter().map(|sum| Any::from(*sum)).collect();
        let sums = self.pass("wgmma.wait_group.sync.aligned 0;", &sums);
        sums.into_iter().map(Any::into_float_value).collect()
    }

    /// Inline assembly through which registers pass unchanged.
    fn pass(&self, text: &str, registers: &[Any<'c>]) -> Vec<Any<'c>> {
        let letters: Vec<_> =
            registers.iter().map(|value| if value.is_float_value() { "=f" } else { "=r" }).collect();
        let tied: Vec<String> = (0..registers.len()).map(|index| index.to_string()).collect();
        let fields: Vec<BasicTypeEnum<'c>> = registers.iter().map(Any::get_type).collect();
        let constraints = format!("{},{},~{{memory}}", letters.join(","), tied.join(","));
        let call = self.asm(text, &constraints, Some(self.context.struct_type(&fields, false)), registers);
        let passed = call.try_as_basic_value().basic().expect("it gives what it takes").into_struct_value();
        (0..registers.len()).map(|index| self.field(passed, index as u32)).collect()
    }

    /// Closes the group of wgmma since the last.
    pub fn wgmma_commit(&self) {
        self.effect("llvm.nvvm.wgmma.commit_group.sync.aligned", &[], &[]);
    }

    /// Waits until at most `pending` groups are under way.
    pub fn wgmma_wait(&self, pending: u64) {
        self.effect("llvm.nvvm.wgmma.wait_group.sync.aligned", &[], &[self.int(pending).into()]);
    }

    /// The descriptor of a matrix in shared memory whose rows of 64 bf16 lie in a 128-byte swizzle, eight rows a group, as
    /// [`Emit::copy_box`] leaves them; it begins at a multiple of 1024 bytes, or a few 32-byte columns after one.
    pub fn descriptor(&self, shared: Ptr<'c>) -> Int<'c> {
        // A leading offset of 1: it is not used where a row ends with the swizzle.
        self.swizzled(shared, 1)
    }

    /// As [`Emit::descriptor`], of a matrix whose rows are what is summed over: a multiple of eight rows, with the next 64
    /// columns `block` bytes on.
    pub fn descriptor_by_rows(&self, shared: Ptr<'c>, block: u32) -> Int<'c> {
        self.swizzled(shared, u64::from(block >> 4))
    }

    fn swizzled(&self, shared: Ptr<'c>, leading: u64) -> Int<'c> {
        let i64 = self.context.i64_type();
        let address = built(self.builder.build_ptr_to_int(shared, self.context.i32_type(), ""));
        let address = built(self.builder.build_int_z_extend(address, i64, ""));
        let start = self.shift_right(self.and(address, self.int(0x3FFFF)), 4);
        // 1024 bytes from eight rows to the next, 128-byte swizzle.
        let rest = (leading << 16) | ((1024_u64 >> 4) << 32) | (1_u64 << 62);
        self.or(start, self.int(rest))
    }

    /// `sums += a b` of a warpgroup: 64 x N x 16 in bf16, both operands in shared memory, K along their rows. Warp w holds
    /// rows 16 w + g and 16 w + g + 8; `sums` are, for each eight columns, its columns 2t and 2t + 1 of the one row and of the
    /// other. In flight until [`Emit::wgmma_wait`].
    pub fn wgmma(&self, a: Int<'c>, b: Int<'c>, sums: &[Float<'c>]) -> Vec<Float<'c>> {
        self.wgmma_of(&[a], b, sums, "0, 0")
    }

    /// As [`Emit::wgmma`], with `a` in registers as [`Emit::mma`] has it for each warp's 16 rows, and a `b` whose descriptor
    /// is one [by rows](Emit::descriptor_by_rows).
    pub fn wgmma_registers(&self, a: [Int<'c>; 4], b: Int<'c>, sums: &[Float<'c>]) -> Vec<Float<'c>> {
        self.wgmma_of(&a, b, sums, "1")
    }

    /// `a` is a descriptor, or four registers; `order` says which operands are transposed.
    fn wgmma_of(&self, a: &[Int<'c>], b: Int<'c>, sums: &[Float<'c>], order: &str) -> Vec<Float<'c>> {
        let count = sums.len();
        let columns = count * 2;
        let places = |from: usize, count: usize| {
            (from..from + count).map(|index| format!("${index}")).collect::<Vec<_>>().join(", ")
        };
        let (left, constraint) = match a.len() {
            1 => (places(count, 1), "l"),
            registers => (format!("{{{}}}", places(count, registers)), "r,r,r,r"),
        };
        let text = format!(
            "wgmma.mma_async.sync.aligned.m64n{columns}k16.f32.bf16.bf16 {{{}}}, {left}, ${}, 1, 1, 1, {order};",
            places(0, count),
            count + a.len()
        );
        let outputs = vec!["=f"; count].join(",");
        let tied: Vec<String> = (0..count).map(|index| index.to_string()).collect();
        let constraints = format!("{outputs},{constraint},l,{},~{{memory}}", tied.join(","));
        let fields: Vec<BasicTypeEnum<'c>> = vec![self.context.f32_type().as_basic_type_enum(); count];
        let ty = self.context.struct_type(&fields, false);
        let mut operands: Vec<_> = a.iter().chain([&b]).map(|word| Any::from(*word)).collect();
        operands.extend(sums.iter().map(|sum| Any::from(*sum)));
        let call = self.asm(&text, &constraints, Some(ty), &operands);
        let result = call.try_as_basic_value().basic().expect("it gives sums").into_struct_value();
        (0..count).map(|index| self.field(result, index as u32).into_float_value()).collect()
    }
}
