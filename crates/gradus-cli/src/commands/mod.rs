//! One file per command.

pub(crate) mod bench;
pub(crate) mod calibrate;
pub(crate) mod cluster;
pub(crate) mod compare;
pub(crate) mod completions;
pub(crate) mod config;
pub(crate) mod data;
pub(crate) mod doctor;
pub(crate) mod duplicates;
pub(crate) mod embed;
pub(crate) mod evaluate;
pub(crate) mod few_shot;
pub(crate) mod index;
pub(crate) mod layers;
pub(crate) mod list;
pub(crate) mod loss;
pub(crate) mod manual;
pub(crate) mod mine;
pub(crate) mod quickstart;
pub(crate) mod report;
pub(crate) mod search;
pub(crate) mod serve;
pub(crate) mod train;
pub(crate) mod trained;
