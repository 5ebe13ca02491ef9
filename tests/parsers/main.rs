//! Every parser of outside bytes on its seeds, on mutations of them, and on input without measure. The functions are those
//! that the fuzz targets run.

#[cfg(test)]
mod limits;
#[cfg(test)]
#[expect(unreachable_pub, reason = "the file belongs to the fuzz targets")]
#[path = "../../fuzz/src/mutate.rs"]
mod mutate;
#[cfg(test)]
#[expect(unreachable_pub, reason = "the file belongs to the fuzz targets")]
#[path = "../../fuzz/src/parsers.rs"]
mod parsers;
#[cfg(test)]
mod replay;
