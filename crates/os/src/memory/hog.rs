//! Memory that is taken, touched and kept.

use std::ptr::{NonNull, null_mut};

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap_anonymous, munmap};

use crate::{Error, Result, error::Context};

/// The most bytes that [`Hog::grow`] takes at once, so that its caller can look around in between: 64 MiB, which takes
/// some tens of milliseconds.
pub const STEP: u64 = 64 << 20;

/// Anonymous private memory with every page written, given back when it is dropped, and by the kernel when this
/// process ends.
#[derive(Debug, Default)]
pub struct Hog {
    blocks: Vec<Block>,
}

impl Hog {
    /// One that has nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many bytes it has taken: whole pages.
    pub fn held(&self) -> u64 {
        self.blocks.iter().map(|block| block.len as u64).sum()
    }

    /// Takes more, rounded up to whole pages, and writes to every page of it. Where the kernel has no memory to give,
    /// its OOM killer ends a process: look at [`now`](super::now) first, and offer this one
    /// ([`OomOffer`](super::OomOffer)).
    ///
    /// # Errors
    /// [`Error::Invalid`] for more than [`STEP`]; [`Error::System`] when the kernel refuses the address space (a
    /// limit of this process, or overcommit turned off).
    pub fn grow(&mut self, bytes: u64) -> Result<()> {
        if bytes > STEP {
            return Err(Error::invalid(format!("{bytes} bytes"), format!("are more than one step, {STEP}")));
        }
        if bytes > 0 {
            let block = Block::map(whole_pages(bytes))?;
            block.touch();
            self.blocks.push(block);
        }
        Ok(())
    }

    /// Gives back at once what is beyond so many bytes, rounded up to whole pages.
    ///
    /// # Errors
    /// [`Error::System`] when the kernel refuses.
    pub fn shrink_to(&mut self, bytes: u64) -> Result<()> {
        while let Some(mut block) = self.blocks.pop() {
            let keep = whole_pages(bytes.saturating_sub(self.held()).min(STEP));
            if block.len > keep {
                block.unmap_from(keep)?;
            }
            if keep > 0 {
                self.blocks.push(block);
                break;
            }
        }
        Ok(())
    }

    /// How many of its bytes are in memory now, rather than in swap (mincore(2)). Takes the kernel some milliseconds
    /// per GiB.
    pub fn resident(&self) -> Result<u64> {
        let mut pages = 0;
        for block in &self.blocks {
            pages += block.resident_pages()?;
        }
        Ok(pages * page_size() as u64)
    }

    /// Writes to every page once more, which brings back those that were swapped out.
    pub fn touch(&mut self) {
        self.blocks.iter().for_each(Block::touch);
    }
}

/// One mapping. Its memory is referred to by nothing but this.
#[derive(Debug)]
struct Block {
    start: NonNull<u8>,
    len: usize,
}

#[expect(unsafe_code, reason = "a mapping is an address, which Rust does not send by itself")]
// SAFETY: a mapping belongs to the process and not to a thread, and `Block` is its only owner.
unsafe impl Send for Block {}

#[expect(unsafe_code, reason = "mappings have no safe form")]
impl Block {
    /// `len` is whole pages and not zero.
    fn map(len: usize) -> Result<Self> {
        let what = || format!("reserve {len} bytes of address space");
        // SAFETY: no address is given, so nothing that is mapped is touched.
        let start = unsafe { mmap_anonymous(null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) };
        let start = NonNull::new(start.cannot(what)?.cast()).expect("the kernel maps nothing at address zero");
        let block = Self { start, len };
        // SAFETY: the range is the mapping just made; this only leaves it out of core dumps.
        let _ = unsafe { madvise(start.as_ptr().cast(), len, Advice::LinuxDontDump) };
        Ok(block)
    }

    /// Not zero, so that no page is the kernel's shared page of zeros or compressed as one.
    fn touch(&self) {
        for offset in (0..self.len).step_by(page_size()) {
            // SAFETY: within the mapping, which is writable and which no reference points into; volatile, because
            // nobody reads it and the write is the point.
            unsafe { self.start.add(offset).write_volatile(1) };
        }
    }

    fn resident_pages(&self) -> Result<u64> {
        let mut pages = vec![0u8; self.len / page_size()];
        // SAFETY: the range is this mapping, and the vector has one byte for each of its pages.
        let failed = unsafe { libc::mincore(self.start.as_ptr().cast(), self.len, pages.as_mut_ptr()) };
        if failed != 0 {
            return Err(std::io::Error::last_os_error()).cannot(|| "ask which pages are in memory");
        }
        Ok(pages.iter().filter(|page| **page & 1 != 0).count() as u64)
    }

    /// `keep` is whole pages and less than the length.
    fn unmap_from(&mut self, keep: usize) -> Result<()> {
        let rest = self.len - keep;
        // SAFETY: the range is the end of this mapping, into which nothing points.
        unsafe { munmap(self.start.add(keep).as_ptr().cast(), rest) }
            .cannot(|| format!("give back {rest} bytes of memory"))?;
        self.len = keep;
        Ok(())
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if self.len > 0 {
            // It can only fail where a mapping would be split in two and there are too many; this one ends whole.
            drop(self.unmap_from(0));
        }
    }
}

fn page_size() -> usize {
    rustix::param::page_size()
}

fn whole_pages(bytes: u64) -> usize {
    usize::try_from(bytes).expect("a step fits the address space").next_multiple_of(page_size())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::resident;

    const MIB: u64 = 1 << 20;

    #[test]
    fn what_is_taken_is_resident_and_what_is_given_back_is_not() {
        let before = resident().expect("readable");
        let grown = || resident().expect("readable").saturating_sub(before);
        let mut hog = Hog::new();
        assert_eq!((hog.held(), hog.resident().expect("readable")), (0, 0));
        hog.grow(STEP).expect("64 MiB");
        hog.grow(40 * MIB + 1).expect("40 MiB");
        let page = page_size() as u64;
        assert_eq!(hog.held(), 104 * MIB + page);
        assert_eq!(hog.resident().expect("readable"), 104 * MIB + page);
        assert!((100 * MIB..120 * MIB).contains(&grown()), "{} bytes more in /proc", grown());

        hog.shrink_to(80 * MIB - 1).expect("ours");
        assert_eq!((hog.held(), hog.resident().expect("readable")), (80 * MIB, 80 * MIB));
        hog.touch();
        hog.shrink_to(200 * MIB).expect("nothing to do");
        hog.shrink_to(10 * MIB).expect("ours");
        assert_eq!(hog.held(), 10 * MIB);
        hog.grow(5 * MIB).expect("5 MiB");
        assert_eq!(hog.resident().expect("readable"), 15 * MIB);
        drop(hog);
        assert!(grown() < 8 * MIB, "{} bytes more in /proc", grown());
    }

    #[test]
    fn a_step_has_its_limit_and_none_is_nothing() {
        let mut hog = Hog::new();
        assert!(matches!(hog.grow(STEP + 1), Err(Error::Invalid { .. })));
        hog.grow(0).expect("nothing");
        hog.shrink_to(0).expect("nothing");
        assert_eq!(hog.held(), 0);
    }

    #[test]
    fn pages_that_the_kernel_took_away_are_brought_back() {
        let mut hog = Hog::new();
        hog.grow(8 * MIB).expect("8 MiB");
        let block = &hog.blocks[0];
        #[expect(unsafe_code, reason = "the test takes pages away as the kernel would")]
        // SAFETY: the range is the mapping's first half, into which nothing points.
        unsafe { madvise(block.start.as_ptr().cast(), block.len / 2, Advice::LinuxDontNeed) }.expect("our own mapping");
        assert_eq!(hog.resident().expect("readable"), 4 * MIB);
        hog.touch();
        assert_eq!(hog.resident().expect("readable"), 8 * MIB);
    }

    /// Run with `--ignored --nocapture`: what a GiB costs.
    #[test]
    #[ignore = "prints times of this machine"]
    fn cost_of_a_gib() {
        let mut hog = Hog::new();
        let time = |what: &str, run: &mut dyn FnMut()| {
            let start = std::time::Instant::now();
            run();
            println!("{what}: {:?}", start.elapsed());
        };
        time("grow by 1 GiB", &mut || (0..16).for_each(|_| hog.grow(STEP).expect("64 MiB")));
        time("count the resident pages", &mut || assert_eq!(hog.resident().expect("readable"), 1 << 30));
        time("touch", &mut || hog.touch());
        time("give back", &mut || hog.shrink_to(0).expect("ours"));
    }
}
