//! Rows that stand in a damaged file and that SQLite does not find: pages of a table to which nothing leads any more, because a page above
//! them is damaged, and pages that stand in the tree of another table.
//!
//! Which table a page belongs to is told by its rows. What was deleted does not come back: a page that is free is passed over, and of the
//! others only the rows that its list names are read.

use std::collections::{HashMap, HashSet};

use rusqlite::{Connection, params_from_iter};

use super::cells::{Chains, Kind, Page, Record};
use super::pages::Pages;
use super::shapes::Shape;
use crate::store::Result;
use crate::store::backup::tables;

/// The rows of a file by tables, as they stand in its pages.
pub(super) struct Scan<'p> {
    pages: &'p Pages,
    shapes: Vec<Shape>,
    /// Pages of each table: those in its tree come first.
    found: Vec<Vec<u32>>,
    /// Row ids in pages that stand in the tree of a table and belong to another.
    strange: Vec<HashSet<i64>>,
    is_strange: Vec<bool>,
}

/// Which tree a page is in: of the table at this place, or of an index or another table.
type Tree = Option<usize>;

impl<'p> Scan<'p> {
    /// Looks at all pages. `source`: where the trees begin.
    pub(super) fn new(pages: &'p Pages, source: &Connection, target: &Connection) -> Result<Self> {
        let shapes: Vec<Shape> =
            tables(target)?.iter().map(|table| Shape::of(target, table)).collect::<Result<_>>()?;
        let count = shapes.len();
        let mut scan = Self {
            pages,
            shapes,
            found: vec![Vec::new(); count],
            strange: vec![HashSet::new(); count],
            is_strange: vec![false; count],
        };
        scan.assign(&scan.trees(source));
        Ok(scan)
    }

    /// The pages of all trees, as far as something leads to them.
    fn trees(&self, source: &Connection) -> HashMap<u32, Tree> {
        let sql = "SELECT name, rootpage FROM sqlite_schema WHERE rootpage > 0";
        let roots = || -> rusqlite::Result<Vec<(String, u32)>> {
            source.prepare(sql)?.query_map([], |row| Ok((row.get(0)?, row.get(1)?)))?.collect()
        };
        let mut trees = HashMap::new();
        let first = (String::new(), 1);
        for (name, root) in std::iter::once(first).chain(roots().unwrap_or_default()) {
            let tree = self.shapes.iter().position(|shape| shape.name == name);
            let mut next = vec![root];
            while let Some(page) = next.pop() {
                if page == 0 || page > self.pages.count || trees.contains_key(&page) {
                    continue;
                }
                trees.insert(page, tree);
                let children = Page::read(self.pages, page).map(|page| page.children(self.pages.usable));
                next.extend(children.unwrap_or_default());
            }
        }
        trees
    }

    fn assign(&mut self, trees: &HashMap<u32, Tree>) {
        let (free, mut chains) = (self.pages.free(), Chains::default());
        let mut beside = vec![Vec::new(); self.shapes.len()];
        for number in 2..=self.pages.count {
            let tree = trees.get(&number).copied();
            if tree.is_none() && free.contains(&number) {
                continue;
            }
            let Some(page) = Page::read(self.pages, number) else { continue };
            if page.kind == Kind::TableInterior {
                continue;
            }
            let records = page.records(self.pages, &mut chains);
            match (self.owner(&records, tree), tree.flatten()) {
                (Some(owner), Some(tree)) if owner == tree => self.found[owner].push(number),
                (Some(owner), tree) => {
                    beside[owner].push(number);
                    if let Some(tree) = tree {
                        self.is_strange[tree] = true;
                        self.strange[tree].extend(records.iter().filter_map(|record| record.rowid));
                    }
                }
                (None, Some(tree)) => self.found[tree].push(number),
                (None, None) => {}
            }
        }
        self.found.iter_mut().zip(beside).for_each(|(found, beside)| found.extend(beside));
    }

    /// The table that most rows of a page fit, at least half of them: the one in whose tree it stands, or another.
    fn owner(&self, records: &[Record], tree: Option<Tree>) -> Option<usize> {
        let fitting = |shape: &Shape| records.iter().filter(|record| shape.row(record).is_some()).count();
        let is_enough = |fitting: usize| fitting > 0 && 2 * fitting >= records.len();
        if let Some(Some(place)) = tree
            && is_enough(fitting(&self.shapes[place]))
        {
            return Some(place);
        }
        let others = self.shapes.iter().enumerate().filter(|(_, shape)| shape.is_known_anywhere);
        let (fitting, place) = others.map(|(place, shape)| (fitting(shape), place)).max()?;
        // What an index holds may look like a row now and then.
        let is_in_index = tree == Some(None);
        (is_enough(fitting) && (!is_in_index || fitting == records.len())).then_some(place)
    }

    /// Whether a page of another table stands in the tree of this one, so that what SQLite reads there are no rows of it.
    pub(super) fn is_strange(&self, table: &str) -> bool {
        self.place(table).is_some_and(|place| self.is_strange[place])
    }

    /// Whether a row that SQLite reads in a table is one of another.
    pub(super) fn is_of_another(&self, table: &str, rowid: Option<i64>) -> bool {
        let Some(place) = self.place(table) else { return false };
        self.is_strange[place] && rowid.is_none_or(|rowid| self.strange[place].contains(&rowid))
    }

    fn place(&self, table: &str) -> Option<usize> {
        self.shapes.iter().position(|shape| shape.name == table)
    }

    /// Puts the rows of a table in that are not there yet; those about a document if it is `wanted`. Returns how many that were.
    pub(super) fn insert(
        &self,
        table: &str,
        target: &Connection,
        wanted: impl Fn(i64) -> bool,
    ) -> Result<usize> {
        let Some(place) = self.place(table) else { return Ok(0) };
        let shape = &self.shapes[place];
        let (mut chains, mut inserted) = (Chains::default(), 0);
        let mut insert = target.prepare(&shape.insert())?;
        for page in self.found[place].iter().filter_map(|page| Page::read(self.pages, *page)) {
            for row in page.records(self.pages, &mut chains).iter().filter_map(|record| shape.row(record)) {
                if shape.document_of(&row).is_none_or(&wanted) {
                    inserted += insert.execute(params_from_iter(&row))?;
                }
            }
        }
        Ok(inserted)
    }
}
