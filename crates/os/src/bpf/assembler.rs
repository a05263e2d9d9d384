//! BPF instructions (RFC 9669), with jumps to labels.

/// A register: r0 is a call's result, r1 to r5 its arguments, r6 to r9 survive it, r10 is the stack's end.
#[derive(Clone, Copy)]
pub(super) struct Register(u8);

pub(super) const R0: Register = Register(0);
pub(super) const R1: Register = Register(1);
pub(super) const R2: Register = Register(2);
pub(super) const R3: Register = Register(3);
pub(super) const R4: Register = Register(4);
pub(super) const R6: Register = Register(6);
pub(super) const R7: Register = Register(7);
pub(super) const STACK: Register = Register(10);

/// How many bytes are moved.
#[derive(Clone, Copy)]
pub(super) enum Size {
    Word = 0x00,
    Double = 0x18,
}

/// A place to jump to, which must be placed once.
#[derive(Clone, Copy)]
pub(super) struct Label(usize);

/// A program in the making.
#[derive(Default)]
pub(super) struct Assembler {
    code: Vec<[u8; 8]>,
    /// Where each label was placed.
    labels: Vec<Option<usize>>,
    /// Instructions that jump, and where to.
    jumps: Vec<(usize, Label)>,
}

impl Assembler {
    fn put(&mut self, code: u8, to: Register, from: Register, offset: i16, immediate: i32) {
        let [o0, o1] = offset.to_ne_bytes();
        let [i0, i1, i2, i3] = immediate.to_ne_bytes();
        let registers = if cfg!(target_endian = "little") { from.0 << 4 | to.0 } else { to.0 << 4 | from.0 };
        self.code.push([code, registers, o0, o1, i0, i1, i2, i3]);
    }

    pub(super) fn label(&mut self) -> Label {
        self.labels.push(None);
        Label(self.labels.len() - 1)
    }

    pub(super) fn place(&mut self, label: Label) {
        self.labels[label.0] = Some(self.code.len());
    }

    pub(super) fn copy(&mut self, to: Register, from: Register) {
        self.put(0xbf, to, from, 0, 0);
    }

    pub(super) fn set(&mut self, to: Register, value: i32) {
        self.put(0xb7, to, R0, 0, value);
    }

    /// All 64 bits.
    pub(super) fn set_wide(&mut self, to: Register, value: u64) {
        self.put(0x18, to, R0, 0, (value as u32).cast_signed());
        self.put(0, R0, R0, 0, ((value >> 32) as u32).cast_signed());
    }

    /// The map behind a descriptor.
    pub(super) fn set_map(&mut self, to: Register, fd: i32) {
        const PSEUDO_MAP_FD: Register = Register(1);
        self.put(0x18, to, PSEUDO_MAP_FD, 0, fd);
        self.put(0, R0, R0, 0, 0);
    }

    pub(super) fn add(&mut self, to: Register, value: i32) {
        self.put(0x07, to, R0, 0, value);
    }

    pub(super) fn shift_right(&mut self, to: Register, bits: i32) {
        self.put(0x77, to, R0, 0, bits);
    }

    pub(super) fn load(&mut self, size: Size, to: Register, at: Register, offset: i16) {
        self.put(0x61 | size as u8, to, at, offset, 0);
    }

    pub(super) fn store(&mut self, size: Size, at: Register, offset: i16, from: Register) {
        self.put(0x63 | size as u8, at, from, offset, 0);
    }

    pub(super) fn store_value(&mut self, at: Register, offset: i16, value: i32) {
        self.put(0x62, at, R0, offset, value);
    }

    /// Adds to 64 bits of memory, atomically.
    pub(super) fn add_to_memory(&mut self, at: Register, offset: i16, from: Register) {
        self.put(0xdb, at, from, offset, 0);
    }

    pub(super) fn jump(&mut self, to: Label) {
        self.jump_by(0x05, R0, R0, 0, to);
    }

    pub(super) fn jump_if_zero(&mut self, register: Register, to: Label) {
        self.jump_by(0x15, register, R0, 0, to);
    }

    pub(super) fn jump_if_not_zero(&mut self, register: Register, to: Label) {
        self.jump_by(0x55, register, R0, 0, to);
    }

    /// Compares the lower 32 bits.
    pub(super) fn jump_unless(&mut self, register: Register, value: i32, to: Label) {
        self.jump_by(0x56, register, R0, value, to);
    }

    /// Compares all 64 bits.
    pub(super) fn jump_unless_same(&mut self, a: Register, b: Register, to: Label) {
        self.jump_by(0x5d, a, b, 0, to);
    }

    /// Compares all 64 bits, without a sign.
    pub(super) fn jump_if_greater(&mut self, a: Register, b: Register, to: Label) {
        self.jump_by(0x2d, a, b, 0, to);
    }

    fn jump_by(&mut self, code: u8, a: Register, b: Register, value: i32, to: Label) {
        self.jumps.push((self.code.len(), to));
        self.put(code, a, b, 0, value);
    }

    /// Calls a helper by its number in include/uapi/linux/bpf.h.
    pub(super) fn call(&mut self, helper: i32) {
        self.put(0x85, R0, R0, 0, helper);
    }

    pub(super) fn exit(&mut self) {
        self.put(0x95, R0, R0, 0, 0);
    }

    pub(super) fn finish(mut self) -> Vec<[u8; 8]> {
        for (from, label) in self.jumps {
            let to = self.labels[label.0].expect("every label that is used is placed");
            // Relative to the next instruction.
            let offset = i16::try_from(to as isize - from as isize - 1).expect("the programs here are short");
            self.code[from][2..4].copy_from_slice(&offset.to_ne_bytes());
        }
        self.code
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_lead_behind_the_next_instruction() {
        let mut a = Assembler::default();
        let end = a.label();
        a.jump_if_zero(R1, end);
        a.set(R0, 7);
        a.place(end);
        a.exit();
        let code = a.finish();
        assert_eq!(code[0], [0x15, 0x01, 1, 0, 0, 0, 0, 0]);
        assert_eq!(code[1], [0xb7, 0x00, 0, 0, 7, 0, 0, 0]);
        assert_eq!(code[2], [0x95, 0, 0, 0, 0, 0, 0, 0]);
    }

    #[test]
    fn wide_values_take_two_instructions() {
        let mut a = Assembler::default();
        a.set_wide(R2, 0x0102_0304_0506_0708);
        assert_eq!(a.finish(), [[0x18, 2, 0, 0, 8, 7, 6, 5], [0, 0, 0, 0, 4, 3, 2, 1]]);
    }
}
