//! DO: carries out the steps of a plan in their order and tells what happens as events.

pub mod event;
