//! widentity

pub mod model;

pub mod plan;

pub mod execute;

pub mod kubernetes;

pub mod sandbox;

pub mod azure;

pub mod prove;

pub mod observe;
