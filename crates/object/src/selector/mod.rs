//! Which objects are meant: [`label`] selectors and [`field`] selectors.

pub mod field;
pub mod label;
