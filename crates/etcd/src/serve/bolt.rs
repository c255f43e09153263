//! A bbolt file, written once and in order: what etcd keeps its data in, and what
//! `etcdutl snapshot restore` takes.
//!
//! A file is pages of 4 KiB: two meta pages, the list of free pages, and the pages of its buckets,
//! each a B+tree. Everything is known before the first byte is written, so leaves are laid out
//! first, then branches over them, then the root bucket, which names the others. Numbers are
//! little-endian (the format is the machine's; every machine that matters is).

use bytes::{BufMut, BytesMut};

use super::fnv;

pub(super) const PAGE_BYTES: usize = 4_096;
const PAGE_HEADER_BYTES: usize = 16;
const ELEMENT_BYTES: usize = 16;
const BUCKET_BYTES: usize = 16;

const BRANCH: u16 = 0x01;
const LEAF: u16 = 0x02;
const META: u16 = 0x04;
const FREELIST: u16 = 0x10;
/// The flag of a leaf's element that is a bucket.
const IS_BUCKET: u32 = 0x01;

const MAGIC: u32 = 0xED0C_DAED;
const VERSION: u32 = 2;

/// A page's count has 16 bits.
const ELEMENTS_MAX: usize = 0xFFFF;

/// One element of a bucket, by its sizes and by its bytes.
pub(super) trait Element {
    fn key(&self) -> Vec<u8>;
    fn key_bytes(&self) -> usize;
    fn value_bytes(&self) -> usize;
    fn write_value(&self, out: &mut BytesMut);
}

impl Element for (Vec<u8>, Vec<u8>) {
    fn key(&self) -> Vec<u8> {
        self.0.clone()
    }

    fn key_bytes(&self) -> usize {
        self.0.len()
    }

    fn value_bytes(&self) -> usize {
        self.1.len()
    }

    fn write_value(&self, out: &mut BytesMut) {
        out.put_slice(&self.1);
    }
}

/// Where a page is and what it begins with.
#[derive(Clone)]
struct Child {
    page: u64,
    first: Vec<u8>,
}

/// A page of leaves: a run of elements.
struct Run {
    begin: usize,
    end: usize,
    pages: usize,
}

type Pair = (Vec<u8>, Vec<u8>);
type Pairs = Vec<Pair>;

/// A file with one large bucket and some small ones.
pub(super) struct File<E> {
    name: &'static str,
    large: Tree<E>,
    small: Vec<(&'static str, Tree<Pair>)>,
}

impl<E: Element> File<E> {
    /// A file of the bucket `name` with `elements` in the order of their keys, and the buckets
    /// `small`, likewise.
    pub(super) fn new(name: &'static str, elements: Vec<E>, small: Vec<(&'static str, Pairs)>) -> Self {
        // Two meta pages and the list of free pages come first.
        let mut next = 3;
        let large = Tree::new(elements, &mut next);
        let small = small.into_iter().map(|(name, pairs)| (name, Tree::new(pairs, &mut next))).collect();
        Self { name, large, small }
    }

    /// Writes the file in pieces of whole pages.
    pub(super) fn write(&self, mut emit: impl FnMut(BytesMut)) {
        let mut buckets = vec![(self.name, self.large.root)];
        buckets.extend(self.small.iter().map(|(name, tree)| (*name, tree.root)));
        buckets.sort_unstable();
        let root = self.small.last().map_or(self.large.end, |(_, tree)| tree.end);
        let mut head = BytesMut::new();
        (0..2).for_each(|number| meta(&mut head, number, root, root + 1));
        page_header(&mut head, 2, FREELIST, 0, 0);
        pad(&mut head);
        emit(head);
        self.large.write(&mut emit);
        self.small.iter().for_each(|(_, tree)| tree.write(&mut emit));
        let buckets: Pairs = buckets.iter().map(|(name, page)| (name.as_bytes().to_vec(), bucket(*page))).collect();
        let mut out = BytesMut::new();
        leaf(&mut out, root, &buckets, 1, IS_BUCKET);
        emit(out);
    }
}

/// A bucket, laid out: its leaves, then its branches.
struct Tree<E> {
    elements: Vec<E>,
    runs: Vec<Run>,
    leaves: Vec<Child>,
    branches: Vec<(u64, Vec<Child>)>,
    root: u64,
    /// The page behind it.
    end: u64,
}

impl<E: Element> Tree<E> {
    /// Gives every page its number, from `next` on.
    fn new(elements: Vec<E>, next: &mut u64) -> Self {
        let mut runs = runs(&elements);
        if runs.is_empty() {
            runs.push(Run { begin: 0, end: 0, pages: 1 });
        }
        let mut leaves = Vec::with_capacity(runs.len());
        for run in &runs {
            leaves.push(Child { page: *next, first: elements.get(run.begin).map(E::key).unwrap_or_default() });
            *next += run.pages as u64;
        }
        let mut branches = Vec::new();
        let mut level = leaves.clone();
        while level.len() > 1 {
            let mut above = Vec::new();
            for group in groups(&level) {
                above.push(Child { page: *next, first: group[0].first.clone() });
                branches.push((*next, group.to_vec()));
                *next += 1;
            }
            level = above;
        }
        Self { elements, runs, leaves, branches, root: level[0].page, end: *next }
    }

    fn write(&self, emit: &mut impl FnMut(BytesMut)) {
        for (run, child) in self.runs.iter().zip(&self.leaves) {
            let mut out = BytesMut::new();
            leaf(&mut out, child.page, &self.elements[run.begin..run.end], run.pages, 0);
            emit(out);
        }
        for (page, children) in &self.branches {
            let mut out = BytesMut::new();
            branch(&mut out, *page, children);
            emit(out);
        }
    }
}

/// Fills pages with elements; one that is larger than a page has several pages for itself.
fn runs<E: Element>(elements: &[E]) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut room = 0;
    for (index, element) in elements.iter().enumerate() {
        let bytes = ELEMENT_BYTES + element.key_bytes() + element.value_bytes();
        match runs.last_mut() {
            Some(run) if bytes <= room && run.end - run.begin < ELEMENTS_MAX => {
                run.end = index + 1;
                room -= bytes;
            }
            _ => {
                let pages = (PAGE_HEADER_BYTES + bytes).div_ceil(PAGE_BYTES);
                runs.push(Run { begin: index, end: index + 1, pages });
                room = pages * PAGE_BYTES - PAGE_HEADER_BYTES - bytes;
            }
        }
    }
    runs
}

/// The children of each branch page of a level.
fn groups(level: &[Child]) -> Vec<&[Child]> {
    let mut groups = Vec::new();
    let (mut begin, mut bytes) = (0, PAGE_HEADER_BYTES);
    for (index, child) in level.iter().enumerate() {
        let more = ELEMENT_BYTES + child.first.len();
        if bytes + more > PAGE_BYTES {
            groups.push(&level[begin..index]);
            (begin, bytes) = (index, PAGE_HEADER_BYTES);
        }
        bytes += more;
    }
    groups.push(&level[begin..]);
    groups
}

fn page_header(out: &mut BytesMut, page: u64, flags: u16, count: usize, overflow: usize) {
    out.put_u64_le(page);
    out.put_u16_le(flags);
    out.put_u16_le(count as u16);
    out.put_u32_le(overflow as u32);
}

fn pad(out: &mut BytesMut) {
    let length = out.len().next_multiple_of(PAGE_BYTES);
    out.resize(length, 0);
}

fn leaf<E: Element>(out: &mut BytesMut, page: u64, elements: &[E], pages: usize, flags: u32) {
    let begin = out.len();
    page_header(out, page, LEAF, elements.len(), pages - 1);
    // Where an element's bytes are counts from the element itself.
    let mut data = elements.len() * ELEMENT_BYTES;
    for (index, element) in elements.iter().enumerate() {
        out.put_u32_le(flags);
        out.put_u32_le((data - index * ELEMENT_BYTES) as u32);
        out.put_u32_le(element.key_bytes() as u32);
        out.put_u32_le(element.value_bytes() as u32);
        data += element.key_bytes() + element.value_bytes();
    }
    for element in elements {
        out.put_slice(&element.key());
        element.write_value(out);
    }
    out.resize(begin + pages * PAGE_BYTES, 0);
}

fn branch(out: &mut BytesMut, page: u64, children: &[Child]) {
    page_header(out, page, BRANCH, children.len(), 0);
    let mut data = children.len() * ELEMENT_BYTES;
    for (index, child) in children.iter().enumerate() {
        out.put_u32_le((data - index * ELEMENT_BYTES) as u32);
        out.put_u32_le(child.first.len() as u32);
        out.put_u64_le(child.page);
        data += child.first.len();
    }
    children.iter().for_each(|child| out.put_slice(&child.first));
    pad(out);
}

/// A bucket as its parent holds it: the page of its root, and a sequence that nobody uses.
fn bucket(page: u64) -> Vec<u8> {
    let mut out = Vec::with_capacity(BUCKET_BYTES);
    out.put_u64_le(page);
    out.put_u64_le(0);
    out
}

fn meta(out: &mut BytesMut, number: u64, root: u64, end: u64) {
    page_header(out, number, META, 0, 0);
    let begin = out.len();
    out.put_u32_le(MAGIC);
    out.put_u32_le(VERSION);
    out.put_u32_le(PAGE_BYTES as u32);
    out.put_u32_le(0);
    out.put_slice(&bucket(root));
    out.put_u64_le(2); // the list of free pages
    out.put_u64_le(end);
    out.put_u64_le(number); // the transaction: the later meta page counts
    let checksum = fnv(out[begin..].iter().copied());
    out.put_u64_le(checksum);
    pad(out);
}
