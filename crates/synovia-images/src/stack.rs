//! Slices in space (PS3.3 §C.7.6.2.1): which of them make a stack, in what order along its normal, and what is amiss.

/// Where a slice lies, in the patient's coordinates.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Plane {
    /// Center of the first pixel: left, posterior, head, in millimetres.
    pub position_mm: [f64; 3],
    /// Unit vectors along a row and along a column; their length does not matter, for writers round them.
    pub orientation: [f64; 6],
}

impl Plane {
    /// Unit vectors along a row, along a column and along the normal; `None` where the orientation spans no plane.
    pub(crate) fn directions(&self) -> Option<[[f64; 3]; 3]> {
        let [a, b, c, d, e, f] = self.orientation;
        let (row, column) = (unit([a, b, c])?, unit([d, e, f])?);
        let ([a, b, c], [d, e, f]) = (row, column);
        let normal = [b * f - c * e, c * d - a * f, a * e - b * d];
        // Parallel but for what rounding makes of it.
        if dot(&normal, &normal) < 1e-4 { None } else { Some([row, column, unit(normal)?]) }
    }
}

fn unit(vector: [f64; 3]) -> Option<[f64; 3]> {
    let length = dot(&vector, &vector).sqrt();
    (length > 1e-6 && length.is_finite()).then(|| vector.map(|x| x / length))
}

/// What slices make together. Numbers are places in the list of slices.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stack {
    /// The slices of the stack, along its normal: one a position, the first of those that share it.
    pub order: Vec<usize>,
    /// Where each of `order` lies along the normal, in millimetres.
    pub along_mm: Vec<f64>,
    /// Median distance of neighbours along the normal; `None` for fewer than two.
    pub spacing_mm: Option<f64>,
    /// Where slices are missing: after which place of `order`, and how many.
    pub gaps: Vec<(usize, usize)>,
    /// Slices at the position of another.
    pub duplicates: Vec<usize>,
    /// Slices that are turned against most of the others, such as a scout or a reformat in the same series, or whose orientation
    /// is no plane.
    pub turned: Vec<usize>,
    /// Angle between the normal and the way from the first slice to the last: that of a tilted gantry.
    pub tilt_degrees: f64,
}

/// Cosine of the angle at which two orientations are no longer one: half a degree.
const SAME_ORIENTATION: f64 = 0.999_96;
const MAX_ORIENTATIONS: usize = 64;
/// Positions that are nearer than this are one: the decimals that writers round to.
const SAME_POSITION_MM: f64 = 0.01;

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

/// Puts slices in order by their position along the normal, whatever their instance numbers. Those of the orientation that
/// most of them have make the stack. More than 64 orientations, as a radial scan has, make none: there is no normal that most of
/// them share, all count as turned, and each would have to be compared with each.
pub fn stack(planes: &[Plane]) -> Stack {
    let alike = |[a, b, _]: &[[f64; 3]; 3], [c, d, _]: &[[f64; 3]; 3]| dot(a, c) > SAME_ORIENTATION && dot(b, d) > SAME_ORIENTATION;
    // Each orientation by the first slice that has it, with its slices.
    let mut groups: Vec<([[f64; 3]; 3], Vec<usize>)> = Vec::new();
    let mut turned = Vec::new();
    for (k, plane) in planes.iter().enumerate() {
        let Some(directions) = plane.directions() else {
            turned.push(k);
            continue;
        };
        match groups.iter().position(|(first, _)| alike(first, &directions)) {
            Some(group) => groups[group].1.push(k),
            None if groups.len() == MAX_ORIENTATIONS => return Stack { turned: (0..planes.len()).collect(), ..Stack::default() },
            None => groups.push((directions, vec![k])),
        }
    }
    let Some(largest) = (0..groups.len()).max_by_key(|&g| (groups[g].1.len(), std::cmp::Reverse(g))) else {
        return Stack { turned, ..Stack::default() };
    };
    let ([_, _, normal], mut members) = groups.swap_remove(largest);
    turned.extend(groups.into_iter().flat_map(|(_, members)| members));
    turned.sort_unstable();
    let along = |k: usize| dot(&planes[k].position_mm, &normal);
    members.sort_by(|&a, &b| along(a).total_cmp(&along(b)));
    let (mut order, mut duplicates): (Vec<usize>, Vec<usize>) = (Vec::new(), Vec::new());
    for k in members {
        match order.last() {
            Some(&last) if along(k) - along(last) < SAME_POSITION_MM => duplicates.push(k),
            _ => order.push(k),
        }
    }
    duplicates.sort_unstable();
    let steps: Vec<f64> = order.windows(2).map(|pair| along(pair[1]) - along(pair[0])).collect();
    let mut sorted = steps.clone();
    sorted.sort_unstable_by(f64::total_cmp);
    let spacing_mm = sorted.get(sorted.len() / 2).copied();
    let missing = |step: f64| spacing_mm.map_or(0, |spacing| ((step / spacing).round() as usize).saturating_sub(1));
    let gaps = steps.iter().enumerate().map(|(place, &step)| (place, missing(step))).filter(|&(_, n)| n > 0).collect();
    let way = match (order.first(), order.last()) {
        (Some(&a), Some(&b)) if a != b => [0, 1, 2].map(|k| planes[b].position_mm[k] - planes[a].position_mm[k]),
        _ => normal,
    };
    let cosine = dot(&way, &normal) / dot(&way, &way).sqrt();
    let along_mm = order.iter().map(|&k| along(k)).collect();
    Stack { order, along_mm, spacing_mm, gaps, duplicates, turned, tilt_degrees: cosine.clamp(-1.0, 1.0).acos().to_degrees() }
}

/// For each of `n` places that lie `spacing_mm` apart about the middle of a volume, the slice that is nearest to it: beyond an end the
/// last one.
///
/// # Shapes
/// - along_mm: places of the slices, rising; at least one
pub(crate) fn nearest(along_mm: &[f64], n: usize, spacing_mm: f64) -> Vec<usize> {
    let middle = f64::midpoint(along_mm[0], along_mm[along_mm.len() - 1]);
    let place = |k: usize| {
        let at = middle + (k as f64 - (n as f64 - 1.0) / 2.0) * spacing_mm;
        let above = along_mm.partition_point(|mm| *mm < at).min(along_mm.len() - 1);
        let below = above.saturating_sub(1);
        if at - along_mm[below] < along_mm[above] - at { below } else { above }
    };
    (0..n).map(place).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const AXIAL: [f64; 6] = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0];

    fn at(z: f64) -> Plane {
        Plane { position_mm: [-10.0, -20.0, z], orientation: AXIAL }
    }

    #[test]
    fn shuffled_gapped_and_with_a_scout() {
        // By hand: positions 0, 2, 4, 10, 12 are places 3, 1, 4, 0, 6; 4 mm and 6 and 8 are missing between 4 and 10: two
        // slices at 6 and 8. Place 5 is at 4 again, place 2 is sagittal.
        let sagittal = Plane { position_mm: [0.0; 3], orientation: [0.0, 1.0, 0.0, 0.0, 0.0, -1.0] };
        let stack = stack(&[at(10.0), at(2.0), sagittal, at(0.0), at(4.0), at(4.001), at(12.0)]);
        assert_eq!(stack.order, [3, 1, 4, 0, 6]);
        assert_eq!(stack.along_mm, [0.0, 2.0, 4.0, 10.0, 12.0]);
        // Five places 3 mm apart about 6: 0, 3, 6, 9, 12; what is as near to either side is the one above.
        assert_eq!(nearest(&stack.along_mm, 5, 3.0), [0, 2, 2, 3, 4]);
        assert_eq!(nearest(&stack.along_mm, 1, 3.0), [2]);
        assert_eq!(nearest(&stack.along_mm, 4, 100.0), [0, 0, 4, 4]);
        assert_eq!(nearest(&[7.0], 3, 1.0), [0, 0, 0]);
        assert_eq!(stack.spacing_mm, Some(2.0));
        assert_eq!(stack.gaps, [(2, 2)]);
        assert_eq!((stack.duplicates, stack.turned), (vec![5], vec![2]));
        assert_eq!(stack.tilt_degrees, 0.0);
    }

    #[test]
    fn a_tilted_gantry() {
        // Turned about the row axis by 30 degrees: the column points (0, cos 30, sin 30), so the normal is (0, -sin 30, cos 30).
        // The table moves along z by 5 mm a slice, which is 5 cos 30 = 4.330 mm along the normal.
        let (sine, cosine) = (0.5, 3f64.sqrt() / 2.0);
        let plane = |z: f64| Plane { position_mm: [0.0, 0.0, z], orientation: [1.0, 0.0, 0.0, 0.0, cosine, sine] };
        let tilted = stack(&[plane(10.0), plane(0.0), plane(5.0)]);
        assert_eq!(tilted.order, [1, 2, 0]);
        assert!((tilted.spacing_mm.unwrap() - 5.0 * cosine).abs() < 1e-9);
        assert!((tilted.tilt_degrees - 30.0).abs() < 1e-9);
        assert!(tilted.gaps.is_empty() && tilted.turned.is_empty());
    }

    #[test]
    fn the_normal_says_which_way() {
        // Row to the left, column to the head: the normal points to the front (-y), so slices run from back to front.
        let coronal = |y: f64| Plane { position_mm: [0.0, y, 0.0], orientation: [1.0, 0.0, 0.0, 0.0, 0.0, 1.0] };
        assert_eq!(stack(&[coronal(-5.0), coronal(5.0), coronal(0.0)]).order, [1, 2, 0]);
    }

    #[test]
    fn rounded_orientations_are_one() {
        // 23 and 41 degrees about two axes, to three decimals: the squares of the second vector's parts add up to 0.9991.
        let rounded = |z: f64| Plane { position_mm: [0.0, 0.0, z], orientation: [0.92, 0.391, 0.0, -0.294, 0.694, 0.656] };
        let stacked = stack(&[rounded(5.0), rounded(0.0), rounded(10.0)]);
        assert_eq!((stacked.order.as_slice(), stacked.turned.len()), ([1, 0, 2].as_slice(), 0));
        // Twice the length is the same direction, and the same distance.
        let long = |z: f64| Plane { orientation: AXIAL.map(|x| 2.0 * x), ..at(z) };
        assert_eq!((stack(&[long(0.0), at(3.0)]).spacing_mm, stack(&[long(0.0), long(3.0)]).spacing_mm), (Some(3.0), Some(3.0)));
    }

    #[test]
    fn no_plane_and_too_many() {
        let none = |orientation| Plane { position_mm: [0.0; 3], orientation };
        let stacked = stack(&[none([0.0; 6]), at(0.0), none([1.0, 0.0, 0.0, 1.0, 0.0, 0.0]), at(1.0)]);
        assert_eq!((stacked.order, stacked.turned), (vec![1, 3], vec![0, 2]));
        assert_eq!(stack(&[none([0.0; 6])]), Stack { turned: vec![0], ..Stack::default() });
        let radial = |k: usize| {
            let (sine, cosine) = (k as f64 * 0.03).sin_cos();
            none([cosine, sine, 0.0, 0.0, 0.0, -1.0])
        };
        let planes: Vec<Plane> = (0..65).map(radial).collect();
        assert_eq!((stack(&planes[..64]).order.len(), stack(&planes).order.len(), stack(&planes).turned.len()), (1, 0, 65));
    }

    #[test]
    fn few_slices() {
        assert_eq!(stack(&[]), Stack::default());
        let one = stack(&[at(3.0)]);
        assert_eq!((one.order, one.spacing_mm, one.tilt_degrees), (vec![0], None, 0.0));
    }
}
