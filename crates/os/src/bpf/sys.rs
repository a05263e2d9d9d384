//! bpf(2), by the numbers of include/uapi/linux/bpf.h.
#![expect(unsafe_code, reason = "bpf has no wrapper in libc; its arguments hold pointers as numbers")]

use std::{
    ffi::CStr,
    marker::PhantomData,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use rustix::{
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, socket_with},
};

/// What kind of map: one that refuses to grow, one of a fixed size whose every value is there from the beginning, or one
/// that forgets what was not used for longest.
#[derive(Clone, Copy)]
pub(super) enum MapKind {
    Hash = 1,
    Array = 2,
    LruHash = 9,
}

/// A map of keys and values of fixed sizes.
#[derive(Debug)]
pub(super) struct Map<K, V> {
    fd: OwnedFd,
    types: PhantomData<(K, V)>,
}

/// Arrays of bytes, whose every value the kernel may write.
pub(super) trait Bytes: Copy + Default {}

impl Bytes for u8 {}
impl Bytes for u32 {}
impl Bytes for u64 {}
impl Bytes for [u8; 16] {}
impl Bytes for [u8; 20] {}

impl<K: Bytes, V: Bytes> Map<K, V> {
    pub(super) fn create(kind: MapKind, entries: u32) -> Result<Self, Errno> {
        const MAP_CREATE: i32 = 0;
        #[repr(C)]
        struct Create {
            kind: u32,
            key_size: u32,
            value_size: u32,
            max_entries: u32,
            flags: u32,
        }
        let create = Create {
            kind: kind as u32,
            key_size: size_of::<K>() as u32,
            value_size: size_of::<V>() as u32,
            max_entries: entries,
            flags: 0,
        };
        // SAFETY: no pointers.
        let fd = unsafe { new_descriptor(MAP_CREATE, &create)? };
        Ok(Self { fd, types: PhantomData })
    }

    pub(super) fn number(&self) -> i32 {
        self.fd.as_raw_fd()
    }

    pub(super) fn get(&self, key: &K) -> Result<Option<V>, Errno> {
        const MAP_LOOKUP_ELEM: i32 = 1;
        let mut value = V::default();
        // SAFETY: the kernel reads a key and writes a value of the map's sizes, which are those of the types.
        match unsafe { self.element(MAP_LOOKUP_ELEM, key, &raw mut value) } {
            Ok(()) => Ok(Some(value)),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e),
        }
    }

    pub(super) fn set(&self, key: &K, value: &V) -> Result<(), Errno> {
        const MAP_UPDATE_ELEM: i32 = 2;
        // SAFETY: the kernel reads a key and a value of the map's sizes, which are those of the types.
        unsafe { self.element(MAP_UPDATE_ELEM, key, std::ptr::from_ref(value).cast_mut()) }
    }

    /// Also fine when there is none.
    pub(super) fn remove(&self, key: &K) -> Result<(), Errno> {
        const MAP_DELETE_ELEM: i32 = 3;
        // SAFETY: the kernel reads a key of the map's size, and no value.
        match unsafe { self.element(MAP_DELETE_ELEM, key, std::ptr::null_mut()) } {
            Err(Errno::NOENT) => Ok(()),
            other => other,
        }
    }

    /// SAFETY: the command must read or write no more than a key and a value.
    unsafe fn element(&self, command: i32, key: &K, value: *mut V) -> Result<(), Errno> {
        #[repr(C)]
        struct Element {
            map: u32,
            padding: u32,
            key: u64,
            value: u64,
            flags: u64,
        }
        let element = Element {
            map: self.number().cast_unsigned(),
            padding: 0,
            key: std::ptr::from_ref(key).expose_provenance() as u64,
            value: value.expose_provenance() as u64,
            flags: 0,
        };
        // SAFETY: the caller's; both live until the call returns.
        unsafe { bpf(command, &element).map(drop) }
    }
}

/// What a program is for.
#[derive(Clone, Copy)]
pub(super) enum Hook {
    Connect4,
    Connect6,
    SockOps,
}

impl Hook {
    /// enum bpf_prog_type
    fn program_type(self) -> u32 {
        match self {
            Self::Connect4 | Self::Connect6 => 18, // BPF_PROG_TYPE_CGROUP_SOCK_ADDR
            Self::SockOps => 13,                   // BPF_PROG_TYPE_SOCK_OPS
        }
    }

    /// enum bpf_attach_type
    fn attach_type(self) -> u32 {
        match self {
            Self::Connect4 => 10, // BPF_CGROUP_INET4_CONNECT
            Self::Connect6 => 11, // BPF_CGROUP_INET6_CONNECT
            Self::SockOps => 3,   // BPF_CGROUP_SOCK_OPS
        }
    }
}

/// Loads a program; what the verifier has to say comes with a refusal.
pub(super) fn load(hook: Hook, code: &[[u8; 8]]) -> Result<OwnedFd, (Errno, String)> {
    const PROG_LOAD: i32 = 5;
    const LICENSE: &CStr = c"Apache-2.0"; // no helper used here asks for the GPL
    #[repr(C)]
    struct Load {
        kind: u32,
        instructions: u32,
        code: u64,
        license: u64,
        log_level: u32,
        log_size: u32,
        log: u64,
        kernel_version: u32,
        flags: u32,
        name: [u8; 16],
        interface: u32,
        attach_type: u32,
    }
    let mut log = vec![0u8; 1 << 16];
    let mut request = Load {
        kind: hook.program_type(),
        instructions: code.len() as u32,
        code: code.as_ptr().expose_provenance() as u64,
        license: LICENSE.as_ptr().expose_provenance() as u64,
        log_level: 0,
        log_size: 0,
        log: 0,
        kernel_version: 0,
        flags: 0,
        name: *b"toprope\0\0\0\0\0\0\0\0\0",
        interface: 0,
        attach_type: hook.attach_type(),
    };
    // SAFETY: the kernel reads as many instructions as said, and a license that ends with NUL.
    match unsafe { new_descriptor(PROG_LOAD, &request) } {
        Err(Errno::INVAL | Errno::ACCESS) => {
            // Once more, now with an ear for the reason.
            request.log_level = 1;
            request.log_size = log.len() as u32;
            request.log = log.as_mut_ptr().expose_provenance() as u64;
            // SAFETY: as above, and it writes as much of a log as said.
            let refused = unsafe { new_descriptor(PROG_LOAD, &request) };
            refused.map_err(|e| (e, String::from_utf8_lossy(&log).trim_end_matches('\0').to_owned()))
        }
        other => other.map_err(|e| (e, String::new())),
    }
}

/// Attaches a program to a control group for as long as the link's descriptor is open, beside those of others.
pub(super) fn attach(program: BorrowedFd<'_>, group: BorrowedFd<'_>, hook: Hook) -> Result<OwnedFd, Errno> {
    const LINK_CREATE: i32 = 28;
    #[repr(C)]
    struct Link {
        program: u32,
        target: u32,
        attach_type: u32,
        flags: u32,
    }
    let link = Link {
        program: program.as_raw_fd().cast_unsigned(),
        target: group.as_raw_fd().cast_unsigned(),
        attach_type: hook.attach_type(),
        flags: 0,
    };
    // SAFETY: no pointers.
    unsafe { new_descriptor(LINK_CREATE, &link) }
}

/// What the kernel numbers.
#[derive(Clone, Copy)]
pub(super) enum Listed {
    Programs,
    Links,
}

/// The smallest number above another one; `None` when there is none, or when this kernel does not list such things.
pub(super) fn next_id(what: Listed, after: u32) -> Result<Option<u32>, Errno> {
    #[repr(C)]
    struct Next {
        start: u32,
        next: u32,
        flags: u32,
    }
    let command = match what {
        Listed::Programs => 11, // BPF_PROG_GET_NEXT_ID
        Listed::Links => 31,    // BPF_LINK_GET_NEXT_ID
    };
    let mut request = Next { start: after, next: 0, flags: 0 };
    // SAFETY: no pointers; the kernel writes the second field.
    match unsafe { bpf_answering(command, &mut request) } {
        Ok(_) => Ok(Some(request.next)),
        Err(Errno::NOENT | Errno::INVAL) => Ok(None),
        Err(e) => Err(e),
    }
}

/// The number of the calling thread's network namespace that programs can compare; `None` before Linux 5.14.
pub(super) fn network_cookie() -> Option<u64> {
    let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).ok()?;
    let mut cookie = 0u64;
    let mut length = size_of::<u64>() as libc::socklen_t;
    // SAFETY: the kernel writes at most as many bytes as said.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    (result == 0).then_some(cookie)
}

/// SAFETY: the command must make a descriptor, and pointers within the attributes must be right for it.
unsafe fn new_descriptor<T>(command: i32, attributes: &T) -> Result<OwnedFd, Errno> {
    // SAFETY: the caller's.
    let fd = unsafe { bpf(command, attributes)? };
    // SAFETY: the kernel made it for us just now, and nothing else owns it. It is closed at exec.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// SAFETY: pointers within the attributes must be right for the command, which must not write to the attributes.
unsafe fn bpf<T>(command: i32, attributes: &T) -> Result<i32, Errno> {
    let pointer = std::ptr::from_ref(attributes).cast_mut();
    // SAFETY: the caller's.
    unsafe { call(command, pointer) }
}

/// SAFETY: pointers within the attributes must be right for the command.
unsafe fn bpf_answering<T>(command: i32, attributes: &mut T) -> Result<i32, Errno> {
    // SAFETY: the caller's.
    unsafe { call(command, std::ptr::from_mut(attributes)) }
}

/// SAFETY: the pointer must be to attributes that are right for the command, and that may be written if it writes.
unsafe fn call<T>(command: i32, pointer: *mut T) -> Result<i32, Errno> {
    // SAFETY: the kernel reads as many bytes as said; the rest is the caller's.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, pointer, size_of::<T>()) };
    match i32::try_from(result) {
        Ok(result) if result >= 0 => Ok(result),
        _ => Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)),
    }
}
