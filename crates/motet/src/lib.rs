//! temporary
mod doc;
mod limits;
