//! SQLite on a [`Disk`]: the same library code that runs on files runs here, with no hook of its own.
//!
//! The first [`Mount`] makes it SQLite's default in this process; a path below `/simulated/` then lies on the disk that was mounted
//! there. Nothing else can be opened.
#![allow(unsafe_code)]

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::PathBuf;
use std::ptr;
use std::sync::{LazyLock, Mutex, Once, PoisonError};

use rusqlite::ffi;

use super::disk::{Call, Disk, Fault, State};

/// Bytes of SQLite's shared memory that are asked for at once.
const LONGEST_PATH: c_int = 512;

static MOUNTED: LazyLock<Mutex<HashMap<String, Disk>>> = LazyLock::new(Mutex::default);

/// A disk and the folder where it is found, until it is dropped.
pub struct Mount {
    folder: String,
}

impl Mount {
    /// Mounts a disk under a name that no other has.
    pub fn new(name: &str, disk: &Disk) -> Self {
        install();
        let folder = format!("/simulated/{name}/");
        MOUNTED.lock().unwrap_or_else(PoisonError::into_inner).insert(folder.clone(), disk.clone());
        Self { folder }
    }

    /// Puts another disk in the place of this one.
    pub fn change(&self, disk: &Disk) {
        MOUNTED.lock().unwrap_or_else(PoisonError::into_inner).insert(self.folder.clone(), disk.clone());
    }

    /// Path of a file on the disk.
    pub fn path(&self, file: &str) -> PathBuf {
        PathBuf::from(format!("{}{file}", self.folder))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        MOUNTED.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.folder);
    }
}

/// Makes simulated disks SQLite's default in this process.
fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let vfs = Box::leak(Box::new(ffi::sqlite3_vfs {
            iVersion: 2,
            szOsFile: size_of::<OpenFile>() as c_int,
            mxPathname: LONGEST_PATH,
            pNext: ptr::null_mut(),
            zName: c"simulated".as_ptr(),
            pAppData: ptr::null_mut(),
            xOpen: Some(open),
            xDelete: Some(delete),
            xAccess: Some(access),
            xFullPathname: Some(full_path),
            xDlOpen: None,
            xDlError: None,
            xDlSym: None,
            xDlClose: None,
            xRandomness: Some(randomness),
            xSleep: Some(sleep),
            xCurrentTime: Some(current_time),
            xGetLastError: None,
            xCurrentTimeInt64: Some(current_time_ms),
            xSetSystemCall: None,
            xGetSystemCall: None,
            xNextSystemCall: None,
        }));
        // SAFETY: the structure is complete and lives as long as the process.
        let done = unsafe { ffi::sqlite3_vfs_register(vfs, 1) };
        assert_eq!(done, ffi::SQLITE_OK);
    });
}

static METHODS: ffi::sqlite3_io_methods = ffi::sqlite3_io_methods {
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved),
    xFileControl: Some(control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// What SQLite takes for a file: its part first, ours behind.
#[repr(C)]
struct OpenFile {
    base: ffi::sqlite3_file,
    ours: *mut Handle,
}

struct Handle {
    disk: Disk,
    name: String,
    number: u64,
    delete_on_close: bool,
}

impl Handle {
    /// SAFETY: `file` must come from [`open`] and not be closed; SQLite promises both.
    unsafe fn of<'a>(file: *mut ffi::sqlite3_file) -> &'a Handle {
        unsafe { &*(*file.cast::<OpenFile>()).ours }
    }
}

/// Finds the disk of a path and the name of the file on it.
fn find(path: &str) -> Option<(Disk, String)> {
    let mounted = MOUNTED.lock().unwrap_or_else(PoisonError::into_inner);
    let end = path.strip_prefix("/simulated/")?.find('/')? + "/simulated/".len() + 1;
    Some((mounted.get(&path[..end])?.clone(), path[end..].to_owned()))
}

/// SAFETY: `path` must be a C string or null.
unsafe fn text<'a>(path: *const c_char) -> Option<&'a str> {
    if path.is_null() { None } else { unsafe { CStr::from_ptr(path) }.to_str().ok() }
}

fn code(result: Result<(), Fault>, io: c_int) -> c_int {
    match result {
        Ok(()) => ffi::SQLITE_OK,
        Err(Fault::Io) => io,
        Err(Fault::Full) => ffi::SQLITE_FULL,
    }
}

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    unsafe { (*file).pMethods = ptr::null() };
    let found = match unsafe { text(path) } {
        Some(path) => find(path),
        // A temporary file: nobody else sees it.
        None => Some((Disk::default(), "temporary".to_owned())),
    };
    let Some((disk, name)) = found else { return ffi::SQLITE_CANTOPEN };
    let number = {
        let mut state = disk.lock();
        if state.is_dead() || (!state.files.contains_key(&name) && flags & ffi::SQLITE_OPEN_CREATE == 0) {
            return ffi::SQLITE_CANTOPEN;
        }
        state.file(&name);
        state.handles += 1;
        state.handles
    };
    let delete_on_close = flags & ffi::SQLITE_OPEN_DELETEONCLOSE != 0;
    let ours = Box::into_raw(Box::new(Handle { disk, name, number, delete_on_close }));
    unsafe {
        (*file.cast::<OpenFile>()).ours = ours;
        (*file).pMethods = &METHODS;
        if !out.is_null() {
            *out = flags;
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    let handle = unsafe { Box::from_raw((*file.cast::<OpenFile>()).ours) };
    let mut state = handle.disk.lock();
    if let Some(file) = state.files.get_mut(&handle.name) {
        file.locks.remove(&handle.number);
    }
    if handle.delete_on_close {
        state.files.remove(&handle.name);
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn read(file: *mut ffi::sqlite3_file, to: *mut c_void, count: c_int, at: i64) -> c_int {
    let handle = unsafe { Handle::of(file) };
    let mut state = handle.disk.lock();
    if state.is_dead() {
        return ffi::SQLITE_IOERR_READ;
    }
    let bytes = &state.file(&handle.name).now;
    let (at, count) = (at as usize, count as usize);
    let there = bytes.len().saturating_sub(at).min(count);
    // SAFETY: SQLite gives room for `count` bytes.
    unsafe {
        ptr::write_bytes(to.cast::<u8>(), 0, count);
        if there > 0 {
            ptr::copy_nonoverlapping(bytes[at..].as_ptr(), to.cast::<u8>(), there);
        }
    }
    if there < count { ffi::SQLITE_IOERR_SHORT_READ } else { ffi::SQLITE_OK }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    count: c_int,
    at: i64,
) -> c_int {
    let handle = unsafe { Handle::of(file) };
    // SAFETY: SQLite gives `count` bytes.
    let bytes = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), count as usize) };
    let mut state = handle.disk.lock();
    let grows = state.file(&handle.name).now.len() < at as usize + bytes.len();
    let call = || Call::Write(handle.name.clone(), at as u64, bytes.to_vec());
    let done = state.call(call, grows);
    if done.is_ok() {
        state.file(&handle.name).write(at as u64, bytes);
    }
    code(done, ffi::SQLITE_IOERR_WRITE)
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: i64) -> c_int {
    let handle = unsafe { Handle::of(file) };
    let mut state = handle.disk.lock();
    let done = state.call(|| Call::Truncate(handle.name.clone(), size as u64), false);
    if done.is_ok() {
        state.file(&handle.name).truncate(size as u64);
    }
    code(done, ffi::SQLITE_IOERR_TRUNCATE)
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, _: c_int) -> c_int {
    let handle = unsafe { Handle::of(file) };
    let mut state = handle.disk.lock();
    let done = state.call(|| Call::Sync(handle.name.clone()), false);
    if done.is_ok() {
        state.file(&handle.name).sync();
    }
    code(done, ffi::SQLITE_IOERR_FSYNC)
}

unsafe extern "C" fn file_size(file: *mut ffi::sqlite3_file, size: *mut i64) -> c_int {
    let handle = unsafe { Handle::of(file) };
    unsafe { *size = handle.disk.lock().file(&handle.name).now.len() as i64 };
    ffi::SQLITE_OK
}

/// The levels of SQLite: shared, reserved, pending, exclusive.
unsafe extern "C" fn lock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    let handle = unsafe { Handle::of(file) };
    let mut state = handle.disk.lock();
    let locks = &mut state.file(&handle.name).locks;
    let others = locks.iter().filter(|(who, _)| **who != handle.number).map(|(_, level)| *level).max();
    let others = others.unwrap_or(ffi::SQLITE_LOCK_NONE);
    let free = match level {
        ffi::SQLITE_LOCK_SHARED => others < ffi::SQLITE_LOCK_PENDING,
        ffi::SQLITE_LOCK_RESERVED => others < ffi::SQLITE_LOCK_RESERVED,
        _ => others < ffi::SQLITE_LOCK_SHARED,
    };
    if !free {
        return ffi::SQLITE_BUSY;
    }
    let mine = locks.entry(handle.number).or_default();
    *mine = level.max(*mine);
    ffi::SQLITE_OK
}

unsafe extern "C" fn unlock(file: *mut ffi::sqlite3_file, level: c_int) -> c_int {
    let handle = unsafe { Handle::of(file) };
    handle.disk.lock().file(&handle.name).locks.insert(handle.number, level);
    ffi::SQLITE_OK
}

unsafe extern "C" fn check_reserved(file: *mut ffi::sqlite3_file, out: *mut c_int) -> c_int {
    let handle = unsafe { Handle::of(file) };
    let mut state = handle.disk.lock();
    let reserved = state.file(&handle.name).locks.values().any(|level| *level >= ffi::SQLITE_LOCK_RESERVED);
    unsafe { *out = c_int::from(reserved) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn control(_: *mut ffi::sqlite3_file, _: c_int, _: *mut c_void) -> c_int {
    ffi::SQLITE_NOTFOUND
}

unsafe extern "C" fn sector_size(_: *mut ffi::sqlite3_file) -> c_int {
    512
}

/// A drive that promises nothing.
unsafe extern "C" fn characteristics(_: *mut ffi::sqlite3_file) -> c_int {
    0
}

unsafe extern "C" fn shm_map(
    file: *mut ffi::sqlite3_file,
    region: c_int,
    size: c_int,
    extend: c_int,
    out: *mut *mut c_void,
) -> c_int {
    let handle = unsafe { Handle::of(file) };
    let mut state = handle.disk.lock();
    let regions = &mut state.file(&handle.name).shared_memory;
    while regions.len() <= region as usize {
        if extend == 0 {
            unsafe { *out = ptr::null_mut() };
            return ffi::SQLITE_OK;
        }
        regions.push(vec![0; size as usize].into_boxed_slice());
    }
    // The region is boxed: its place does not change while the file is there.
    unsafe { *out = regions[region as usize].as_mut_ptr().cast() };
    ffi::SQLITE_OK
}

unsafe extern "C" fn shm_lock(
    file: *mut ffi::sqlite3_file,
    offset: c_int,
    count: c_int,
    flags: c_int,
) -> c_int {
    let handle = unsafe { Handle::of(file) };
    let mut state = handle.disk.lock();
    let me = handle.number;
    let slots = &mut state.file(&handle.name).slots[offset as usize..(offset + count) as usize];
    let shared = flags & ffi::SQLITE_SHM_SHARED != 0;
    if flags & ffi::SQLITE_SHM_UNLOCK != 0 {
        for slot in slots {
            match shared {
                true => _ = slot.shared.iter().position(|who| *who == me).map(|at| slot.shared.remove(at)),
                false => slot.alone = slot.alone.filter(|who| *who != me),
            }
        }
        return ffi::SQLITE_OK;
    }
    let free = slots.iter().all(|slot| {
        slot.alone.is_none_or(|who| who == me) && (shared || slot.shared.iter().all(|who| *who == me))
    });
    if !free {
        return ffi::SQLITE_BUSY;
    }
    for slot in slots {
        match shared {
            true => slot.shared.push(me),
            false => slot.alone = Some(me),
        }
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn shm_barrier(_: *mut ffi::sqlite3_file) {}

unsafe extern "C" fn shm_unmap(file: *mut ffi::sqlite3_file, delete: c_int) -> c_int {
    let handle = unsafe { Handle::of(file) };
    let mut state = handle.disk.lock();
    let file = state.file(&handle.name);
    for slot in &mut file.slots {
        slot.shared.retain(|who| *who != handle.number);
        slot.alone = slot.alone.filter(|who| *who != handle.number);
    }
    if delete != 0 {
        file.shared_memory.clear();
    }
    ffi::SQLITE_OK
}

unsafe extern "C" fn delete(_: *mut ffi::sqlite3_vfs, path: *const c_char, _: c_int) -> c_int {
    let Some((disk, name)) = unsafe { text(path) }.and_then(find) else { return ffi::SQLITE_IOERR_DELETE };
    let mut state = disk.lock();
    if !state.files.contains_key(&name) {
        return ffi::SQLITE_IOERR_DELETE_NOENT;
    }
    let done = state.call(|| Call::Delete(name.clone()), false);
    if done.is_ok() {
        state.files.remove(&name);
    }
    code(done, ffi::SQLITE_IOERR_DELETE)
}

unsafe extern "C" fn access(
    _: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    _: c_int,
    out: *mut c_int,
) -> c_int {
    let found = unsafe { text(path) }.and_then(find);
    let is_there = |(disk, name): (Disk, String)| {
        let state: &State = &disk.lock();
        state.files.contains_key(&name)
    };
    unsafe { *out = c_int::from(found.is_some_and(is_there)) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn full_path(
    _: *mut ffi::sqlite3_vfs,
    path: *const c_char,
    room: c_int,
    out: *mut c_char,
) -> c_int {
    let bytes = unsafe { CStr::from_ptr(path) }.to_bytes_with_nul();
    if bytes.len() > room as usize {
        return ffi::SQLITE_CANTOPEN;
    }
    unsafe { ptr::copy_nonoverlapping(bytes.as_ptr().cast(), out, bytes.len()) };
    ffi::SQLITE_OK
}

unsafe extern "C" fn randomness(_: *mut ffi::sqlite3_vfs, count: c_int, out: *mut c_char) -> c_int {
    for n in 0..count {
        unsafe { *out.add(n as usize) = (n * 37 + 11) as c_char };
    }
    count
}

/// Nobody else would let go meanwhile: there is one thread.
unsafe extern "C" fn sleep(_: *mut ffi::sqlite3_vfs, microseconds: c_int) -> c_int {
    microseconds
}

/// Noon of a day in 2026, as a Julian day.
unsafe extern "C" fn current_time(_: *mut ffi::sqlite3_vfs, out: *mut f64) -> c_int {
    unsafe { *out = 2_461_041.0 };
    ffi::SQLITE_OK
}

unsafe extern "C" fn current_time_ms(_: *mut ffi::sqlite3_vfs, out: *mut i64) -> c_int {
    unsafe { *out = 2_461_041 * 86_400_000 };
    ffi::SQLITE_OK
}
