//! widentity

pub mod model;

pub mod plan;

pub mod execute;

pub mod ops;

pub mod cli;

pub mod render;

pub mod sandbox;
