//! Files below `<namespace>/<key>.<sha256>`, the least recently used of which go when there is no room. All that is
//! known of a file stands in its name, so a restarted container finds what its predecessor left.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::digest::is_hex;

/// A file of a namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    namespace: String,
    name: String,
}

impl Key {
    /// None: it would name another folder than its namespace's.
    pub fn new(namespace: &str, name: &str) -> Option<Self> {
        let label = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-');
        let is_namespace = (1..=63).contains(&namespace.len()) && namespace.bytes().all(label);
        (is_namespace && is_hex(name)).then(|| Self { namespace: namespace.into(), name: name.into() })
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Entry {
    pub size: u64,
    pub sha256: String,
    used: u64,
}

#[derive(Debug, Default)]
struct Shelf {
    entries: BTreeMap<Key, Entry>,
    /// Of the entries, and of what is being written.
    bytes: u64,
    reserved: u64,
    /// Counts uses, so that no clock is needed.
    turn: u64,
    evicted: u64,
}

/// What is there, within a number of bytes.
#[derive(Debug)]
pub(super) struct Store {
    root: PathBuf,
    limit: u64,
    min_free_percent: u64,
    disk: fn(&Path) -> io::Result<Disk>,
    shelf: Mutex<Shelf>,
}

/// Room for a file that is being written.
#[derive(Debug)]
pub(super) struct Room {
    store: Arc<Store>,
    size: u64,
    pub path: PathBuf,
}

impl Drop for Room {
    fn drop(&mut self) {
        self.store.shelf().reserved -= self.size;
        // Gone when the file was kept.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// In bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Disk {
    pub free: u64,
    pub all: u64,
}

impl Disk {
    fn of(folder: &Path) -> io::Result<Self> {
        let disk = rustix::fs::statvfs(folder)?;
        Ok(Self { free: disk.f_bavail * disk.f_frsize, all: disk.f_blocks * disk.f_frsize })
    }

    /// How many bytes less there would have to be for so many more.
    fn short_of(&self, wanted: u64, min_free_percent: u64) -> u64 {
        let spared = self.all.div_ceil(100).saturating_mul(min_free_percent);
        wanted.saturating_add(spared).saturating_sub(self.free)
    }
}

/// Far more than models have; a flood of tiny ones must not fill the memory.
const MOST_FILES: usize = 10_000;
/// Where files stand while they are written. No namespace has a dot in its name.
const INCOMING: &str = ".incoming";

impl Store {
    /// Takes over what stands below `root`.
    pub fn open(root: &Path, limit: u64, min_free_percent: u64) -> io::Result<Self> {
        let incoming = root.join(INCOMING);
        if incoming.exists() {
            std::fs::remove_dir_all(&incoming)?;
        }
        std::fs::create_dir_all(&incoming)?;
        let mut shelf = Shelf::default();
        for namespace in std::fs::read_dir(root)?.flatten().filter(|entry| entry.path() != incoming) {
            for file in std::fs::read_dir(namespace.path())?.flatten() {
                let name = file.file_name().to_string_lossy().into_owned();
                let read = name.split_once('.').and_then(|(key, sha256)| {
                    let key = Key::new(&namespace.file_name().to_string_lossy(), key)?;
                    is_hex(sha256).then(|| (key, sha256.to_owned()))
                });
                let (Some((key, sha256)), Ok(meta)) = (read, file.metadata()) else { continue };
                shelf.bytes += meta.len();
                shelf.entries.insert(key, Entry { size: meta.len(), sha256, used: 0 });
            }
        }
        let store =
            Self { root: root.to_owned(), limit, min_free_percent, disk: Disk::of, shelf: Mutex::new(shelf) };
        // The limit may be lower than it was.
        store.evict(&mut store.shelf(), 0, 0);
        Ok(store)
    }

    #[cfg(test)]
    pub fn on(self, disk: fn(&Path) -> io::Result<Disk>) -> Self {
        Self { disk, ..self }
    }

    /// The file and what is known of it; it is the most recently used now.
    pub fn get(&self, key: &Key) -> Option<(std::fs::File, Entry)> {
        let mut shelf = self.shelf();
        shelf.turn += 1;
        let turn = shelf.turn;
        let entry = shelf.entries.get_mut(key)?;
        entry.used = turn;
        let entry = entry.clone();
        // Opened under the lock: what is evicted from now on can still be read to its end.
        match std::fs::File::open(self.path(key, &entry.sha256)) {
            Ok(file) => Some((file, entry)),
            Err(e) => {
                if e.kind() == io::ErrorKind::NotFound {
                    shelf.entries.remove(key);
                    shelf.bytes -= entry.size;
                }
                None
            }
        }
    }

    pub fn has(&self, key: &Key, sha256: &str) -> bool {
        self.shelf().entries.get(key).is_some_and(|entry| entry.sha256 == sha256)
    }

    /// Its bytes are no longer what they were.
    pub fn forget(&self, key: &Key, bad: &Entry) {
        let mut shelf = self.shelf();
        if shelf.entries.get(key).is_some_and(|entry| entry.sha256 == bad.sha256) {
            let _ = std::fs::remove_file(self.path(key, &bad.sha256));
            shelf.entries.remove(key);
            shelf.bytes -= bad.size;
        }
    }

    /// Or why there is none. The disk has other users, and what was evicted while it is being read takes room, too.
    pub fn room(self: &Arc<Self>, size: u64) -> Result<Room, String> {
        let mut shelf = self.shelf();
        let (limit, written) = (self.limit, shelf.reserved);
        if written.saturating_add(size) > limit {
            return Err(format!(
                "{size} bytes have no room in {limit}, {written} of which are being written"
            ));
        }
        // What others have written so far counts twice: on the safe side.
        let wanted = size.saturating_add(written);
        let disk = (self.disk)(&self.root).map_err(|e| format!("{}: {e}", self.root.display()))?;
        let short = disk.short_of(wanted, self.min_free_percent);
        if short <= shelf.bytes {
            self.evict(&mut shelf, size, short);
        }
        // Where all that is kept would not do, nothing goes; where it would, one that is being read gives nothing back yet.
        let disk = if short == 0 { disk } else { (self.disk)(&self.root).unwrap_or(disk) };
        if disk.short_of(wanted, self.min_free_percent) > 0 {
            let (Disk { free, all }, percent) = (disk, self.min_free_percent);
            return Err(format!(
                "the disk has {free} of {all} bytes free, and {percent} % of it stay so: {wanted} more have no room"
            ));
        }
        shelf.reserved += size;
        shelf.turn += 1;
        let path = self.root.join(INCOMING).join(shelf.turn.to_string());
        Ok(Room { store: self.clone(), size, path })
    }

    /// Keeps what was written into the room.
    pub fn keep(&self, room: Room, key: Key, sha256: String) -> io::Result<()> {
        std::fs::create_dir_all(self.root.join(&key.namespace))?;
        let mut shelf = self.shelf();
        std::fs::rename(&room.path, self.path(&key, &sha256))?;
        shelf.turn += 1;
        let entry = Entry { size: room.size, sha256, used: shelf.turn };
        shelf.bytes += entry.size;
        if let Some(before) = shelf.entries.insert(key.clone(), entry.clone()) {
            shelf.bytes -= before.size;
            if before.sha256 != entry.sha256 {
                let _ = std::fs::remove_file(self.path(&key, &before.sha256));
            }
        }
        drop(shelf);
        Ok(())
    }

    /// Bytes that are there, and files that had to go.
    pub fn counts(&self) -> (u64, u64) {
        let shelf = self.shelf();
        (shelf.bytes, shelf.evicted)
    }

    /// Until `wanted` bytes have room within the limit, and at least `short` bytes are gone.
    fn evict(&self, shelf: &mut Shelf, wanted: u64, short: u64) {
        let least = shelf.bytes.saturating_sub(short);
        while shelf.bytes > least
            || shelf.bytes + shelf.reserved + wanted > self.limit
            || shelf.entries.len() >= MOST_FILES
        {
            let oldest = shelf.entries.iter().min_by_key(|(_, entry)| entry.used);
            let Some((key, entry)) = oldest.map(|(key, entry)| (key.clone(), entry.clone())) else { return };
            let _ = std::fs::remove_file(self.path(&key, &entry.sha256));
            shelf.entries.remove(&key);
            shelf.bytes -= entry.size;
            shelf.evicted += 1;
        }
    }

    fn path(&self, key: &Key, sha256: &str) -> PathBuf {
        self.root.join(&key.namespace).join(format!("{}.{sha256}", key.name))
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf> {
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
