//! Loads a relocatable x86-64 ELF object: maps its sections, applies its relocations, and finds its
//! functions. No linker and no compiler is needed on the machine.

#![allow(unsafe_code, reason = "addresses of loaded code become functions")]

use std::collections::HashMap;

use nemo_ir::step::StepDims;
use object::elf;
use object::read::elf::ElfFile64;
use object::{
    Architecture, Endianness, Object, ObjectKind, ObjectSection, ObjectSymbol, RelocationFlags,
    RelocationTarget, SectionFlags, SectionIndex,
};
use thiserror::Error;

use super::memory::{MemoryError, Region};

/// A kernel: the launch's pointers in the plan's order, the step's dims, and which share of how many
/// to compute.
pub type KernelFn =
    unsafe extern "C" fn(args: *const *mut u8, dims: *const StepDims, thread: u32, threads: u32);

const PAGE: usize = 4096;

/// Why an object cannot be loaded.
#[derive(Debug, Error)]
pub enum ObjectError {
    /// Not an ELF file that can be parsed.
    #[error("the kernel object is malformed: {0}")]
    Malformed(String),
    /// Some other machine or kind of file.
    #[error("the kernel object is {has}, not a relocatable x86-64 ELF file")]
    Kind {
        /// What it is.
        has: String,
    },
    /// Kernels keep no state of their own.
    #[error("the kernel object has a writable section `{0}`; kernels have only code and constants")]
    WritableSection(String),
    /// A call to something outside of the object.
    #[error("the kernel object refers to the undefined symbol `{0}`; there is nothing to link it with")]
    UndefinedSymbol(String),
    /// A kind of relocation that a linker would be needed for.
    #[error(
        "the kernel object has a relocation of type {kind} in `{section}`, which the loader does not know"
    )]
    Relocation {
        /// Its name or number.
        kind: String,
        /// The section it is in.
        section: String,
    },
    /// A value too large for its field.
    #[error("the kernel object has a relocation of type {kind} in `{section}` whose value does not fit")]
    RelocationRange {
        /// Its name.
        kind: String,
        /// The section it is in.
        section: String,
    },
    /// A kernel of the plan that the object lacks.
    #[error("the kernel object has no function `{0}`")]
    MissingFunction(String),
    /// No memory for it.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The system would not make it executable.
    #[error("cannot make the kernels executable: {0}")]
    Protect(std::io::Error),
}

/// Loaded code.
#[derive(Debug)]
pub struct Code {
    region: Region,
    /// Offsets of the functions by name.
    functions: HashMap<String, usize>,
}

/// Where one section was put.
struct Placed {
    offset: usize,
    size: usize,
    executable: bool,
}

type Elf<'a> = ElfFile64<'a, Endianness>;

impl Code {
    /// The function called `symbol`.
    ///
    /// # Errors
    /// [`ObjectError::MissingFunction`].
    pub fn function(&self, symbol: &str) -> Result<KernelFn, ObjectError> {
        let offset =
            *self.functions.get(symbol).ok_or_else(|| ObjectError::MissingFunction(symbol.to_owned()))?;
        // SAFETY: the offset lies in the executable part of the region; that the code there has the
        // kernel signature is the artifact's promise, which calling it relies on.
        Ok(unsafe { std::mem::transmute::<*mut u8, KernelFn>(self.region.as_ptr().add(offset)) })
    }
}

/// Maps an object's sections, relocates and protects them.
///
/// # Errors
/// [`ObjectError`] when the object needs anything that this loader does not do.
pub fn load(bytes: &[u8]) -> Result<Code, ObjectError> {
    let malformed = |error: object::Error| ObjectError::Malformed(error.to_string());
    let elf = Elf::parse(bytes).map_err(malformed)?;
    if elf.kind() != ObjectKind::Relocatable
        || elf.architecture() != Architecture::X86_64
        || !elf.is_little_endian()
    {
        let has = format!("{:?} for {:?}", elf.kind(), elf.architecture());
        return Err(ObjectError::Kind { has });
    }
    let (placed, code_end, end) = place(&elf)?;
    let mut region = Region::new(end as u64)?;
    for section in elf.sections() {
        if let Some(at) = placed.get(&section.index()) {
            let data = section.data().map_err(malformed)?;
            if data.len() != at.size {
                return Err(ObjectError::Malformed(format!("section `{}` is cut off", name(&section))));
            }
            region.bytes_mut()[at.offset..at.offset + at.size].copy_from_slice(data);
        }
    }
    relocate(&elf, &placed, &mut region)?;
    let functions = functions(&elf, &placed)?;
    region.protect(0..code_end, libc::PROT_READ | libc::PROT_EXEC).map_err(ObjectError::Protect)?;
    region.protect(code_end..end, libc::PROT_READ).map_err(ObjectError::Protect)?;
    Ok(Code { region, functions })
}

fn name<'a>(section: &impl ObjectSection<'a>) -> String {
    section.name().unwrap_or("?").to_owned()
}

/// Puts executable sections first and constants on the pages after them.
fn place(elf: &Elf<'_>) -> Result<(HashMap<SectionIndex, Placed>, usize, usize), ObjectError> {
    let mut placed = HashMap::new();
    let mut end = 0_usize;
    let mut code_end = 0;
    for executable in [true, false] {
        for section in elf.sections() {
            let SectionFlags::Elf { sh_flags, .. } = section.flags() else { continue };
            let has = |flag| sh_flags & flag == flag;
            // Unwind tables are for unwinders; kernels do not unwind.
            let skipped = !has(elf::SHF_ALLOC) || section.name() == Ok(".eh_frame") || section.size() == 0;
            if skipped || has(elf::SHF_EXECINSTR) != executable {
                continue;
            }
            // Constants that hold addresses are writable until a loader has filled them in.
            let constant = section.name().is_ok_and(|name| name.starts_with(".data.rel.ro"));
            if has(elf::SHF_WRITE) && !constant {
                return Err(ObjectError::WritableSection(name(&section)));
            }
            let align = section.align().max(1);
            let fits = align.is_power_of_two() && align <= PAGE as u64;
            let size = usize::try_from(section.size()).ok().filter(|size| fits && *size <= elf.data().len());
            let Some(size) = size else {
                let section = name(&section);
                return Err(ObjectError::Malformed(format!(
                    "section `{section}` has no sane size and alignment"
                )));
            };
            // At most the object's size per section, so the sum cannot overflow.
            let offset = end.next_multiple_of(align as usize);
            end = offset + size;
            placed.insert(section.index(), Placed { offset, size, executable });
        }
        end = end.next_multiple_of(PAGE);
        if executable {
            code_end = end;
        }
    }
    Ok((placed, code_end, end))
}

fn relocate(
    elf: &Elf<'_>,
    placed: &HashMap<SectionIndex, Placed>,
    region: &mut Region,
) -> Result<(), ObjectError> {
    let base = region.as_ptr() as u64;
    for section in elf.sections() {
        let Some(at) = placed.get(&section.index()) else { continue };
        for (offset, relocation) in section.relocations() {
            let RelocationFlags::Elf { r_type } = relocation.flags() else { continue };
            let error = |kind: String| ObjectError::Relocation { kind, section: name(&section) };
            let (kind, width) = match r_type {
                elf::R_X86_64_NONE => continue,
                elf::R_X86_64_64 => ("R_X86_64_64", 8),
                elf::R_X86_64_PC32 => ("R_X86_64_PC32", 4),
                elf::R_X86_64_PLT32 => ("R_X86_64_PLT32", 4),
                elf::R_X86_64_32 => ("R_X86_64_32", 4),
                elf::R_X86_64_32S => ("R_X86_64_32S", 4),
                elf::R_X86_64_GOTPCREL => return Err(error("R_X86_64_GOTPCREL".to_owned())),
                elf::R_X86_64_GOTPCRELX => return Err(error("R_X86_64_GOTPCRELX".to_owned())),
                elf::R_X86_64_REX_GOTPCRELX => return Err(error("R_X86_64_REX_GOTPCRELX".to_owned())),
                other => return Err(error(other.to_string())),
            };
            let target = target(elf, placed, relocation.target())?;
            let value = base.wrapping_add(target as u64).wrapping_add_signed(relocation.addend());
            let field = usize::try_from(offset)
                .ok()
                .and_then(|offset| Some(offset..offset.checked_add(width)?))
                .filter(|field| field.end <= at.size)
                .map(|field| at.offset + field.start..at.offset + field.end)
                .ok_or_else(|| {
                    ObjectError::Malformed(format!(
                        "a relocation lies outside of section `{}`",
                        name(&section)
                    ))
                })?;
            let relative = value.wrapping_sub(base.wrapping_add(field.start as u64)) as i64;
            let too_large =
                || ObjectError::RelocationRange { kind: kind.to_owned(), section: name(&section) };
            let bytes = &mut region.bytes_mut()[field];
            match r_type {
                elf::R_X86_64_64 => bytes.copy_from_slice(&value.to_le_bytes()),
                elf::R_X86_64_32 => {
                    bytes.copy_from_slice(&u32::try_from(value).map_err(|_| too_large())?.to_le_bytes());
                }
                elf::R_X86_64_32S => {
                    let value = i32::try_from(value as i64).map_err(|_| too_large())?;
                    bytes.copy_from_slice(&value.to_le_bytes());
                }
                _ => {
                    let relative = i32::try_from(relative).map_err(|_| too_large())?;
                    bytes.copy_from_slice(&relative.to_le_bytes());
                }
            }
        }
    }
    Ok(())
}

/// Offset in the region of what a relocation refers to.
fn target(
    elf: &Elf<'_>,
    placed: &HashMap<SectionIndex, Placed>,
    target: RelocationTarget,
) -> Result<usize, ObjectError> {
    let RelocationTarget::Symbol(index) = target else {
        return Err(ObjectError::Malformed(format!("a relocation refers to {target:?}")));
    };
    let symbol = elf.symbol_by_index(index).map_err(|error| ObjectError::Malformed(error.to_string()))?;
    let label = symbol.name().unwrap_or("?").to_owned();
    let Some(section) = symbol.section_index() else {
        return Err(ObjectError::UndefinedSymbol(label));
    };
    let at = placed.get(&section).ok_or_else(|| ObjectError::UndefinedSymbol(label.clone()))?;
    usize::try_from(symbol.address())
        .ok()
        .filter(|address| *address <= at.size)
        .map(|address| at.offset + address)
        .ok_or_else(|| ObjectError::Malformed(format!("symbol `{label}` lies outside of its section")))
}

fn functions(
    elf: &Elf<'_>,
    placed: &HashMap<SectionIndex, Placed>,
) -> Result<HashMap<String, usize>, ObjectError> {
    let mut functions = HashMap::new();
    for symbol in elf.symbols().filter(|symbol| symbol.is_global() && symbol.is_definition()) {
        let label = symbol.name().map_err(|error| ObjectError::Malformed(error.to_string()))?;
        let Some(at) = symbol.section_index().and_then(|section| placed.get(&section)) else { continue };
        let address = usize::try_from(symbol.address()).ok().filter(|address| *address < at.size);
        if let Some(address) = address.filter(|_| at.executable) {
            functions.insert(label.to_owned(), at.offset + address);
        }
    }
    Ok(functions)
}

#[cfg(test)]
pub(super) mod tests;
