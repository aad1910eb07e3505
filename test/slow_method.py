"""The paper's losses in plain NumPy, pixel after pixel, written apart from the package: slow, but easy to check."""

import numpy as np


def softmax(logits):
    """(C, ...) -> probabilities over the first axis."""
    e = np.exp(logits - logits.max(axis=0))
    return e / e.sum(axis=0)


def median_frequency(labels, classes):
    """w_c = median(freq) / freq_c; freq_c = pixels of c / labelled pixels of the images that contain c."""
    frequency = np.zeros(classes + 1)
    for c in range(1, classes + 1):
        containing = [label for label in labels if (label == c).any()]
        if containing:
            frequency[c] = sum((i == c).sum() for i in containing) / sum((i > 0).sum() for i in containing)
    present = frequency > 0
    weights = np.ones(classes + 1)
    weights[present] = np.median(frequency[present]) / frequency[present]
    return weights[1:]


def cross_entropy(logits, labels, weights):
    """Mean over the pixels whose label is not 0, weighted by class. logits (B, C, H, W), labels (B, H, W)."""
    total = norm = 0.0
    for b, y, x in np.argwhere(labels > 0):
        c = labels[b, y, x] - 1
        total -= weights[c] * np.log(softmax(logits[b, :, y, x].astype(np.float64))[c])
        norm += weights[c]
    return total / norm


def look_up(x, y, d, K_target, T_source_target, K_source, width, height):
    """Where pixel (x, y) of the target at depth d lies in the source: (u, v, z), or None outside or behind."""
    point = T_source_target[:3, :3] @ (d * np.linalg.inv(K_target) @ [x, y, 1.0]) + T_source_target[:3, 3]
    if point[2] <= 0:
        return None
    u, v, _ = K_source @ (point / point[2])
    if not (-0.5 <= u <= width - 0.5 and -0.5 <= v <= height - 0.5):
        return None
    return min(max(u, 0), width - 1), min(max(v, 0), height - 1), point[2]


def bilinear(image, u, v):
    """image (C, H, W) at (u, v)."""
    _, height, width = image.shape
    x, y = min(int(u), width - 2), min(int(v), height - 2)
    a, b = u - x, v - y
    top = (1 - a) * image[:, y, x] + a * image[:, y, x + 1]
    bottom = (1 - a) * image[:, y + 1, x] + a * image[:, y + 1, x + 1]
    return (1 - b) * top + b * bottom


def near_border(label, x, y, radius):
    """Whether the square window about (x, y) holds more than one label."""
    window = label[max(y - radius, 0) : y + radius + 1, max(x - radius, 0) : x + radius + 1]
    return (window != label[y, x]).any()


def merged_label(target, neighbours, *, threshold, radius):
    """Merge_{e'} Warp_{e'→e}: (H, W) ids, 0 = none.

    Each view is a dict of depth (H, W), K (3, 3), T (4, 4: T_world_camera) and, of the neighbours, label (H, W)
    and probabilities (C, H, W).
    """
    height, width = target["depth"].shape
    merged = np.zeros((height, width), int)
    for y, x in np.ndindex(height, width):
        votes = np.zeros(len(neighbours[0]["probabilities"]))
        for view in neighbours:
            d = target["depth"][y, x]
            T_source_target = np.linalg.inv(view["T"]) @ target["T"]
            found = d > 0 and look_up(x, y, d, target["K"], T_source_target, view["K"], width, height)
            if not found:
                continue
            u, v, z = found
            column, row = round(u), round(v)
            seen = view["depth"][row, column]
            if seen > 0 and abs(seen - z) <= threshold * z and not near_border(view["label"], column, row, radius):
                votes += bilinear(view["probabilities"], u, v)
        if votes.any():
            merged[y, x] = votes.argmax() + 1
    return merged


def photometric(image, warped, valid):
    """0.85 (1 - SSIM) / 2 + 0.15 |difference| where the 3x3 window is valid: list of values of all colours."""
    errors = []
    _, height, width = image.shape
    for y, x in np.ndindex(height - 2, width - 2):
        rows, columns = slice(y, y + 3), slice(x, x + 3)
        if not valid[rows, columns].all():
            continue
        for c in range(3):
            p, q = image[c, rows, columns].ravel(), warped[c, rows, columns].ravel()
            covariance = ((p - p.mean()) * (q - q.mean())).mean()
            ssim = (2 * p.mean() * q.mean() + 0.01**2) * (2 * covariance + 0.03**2)
            ssim /= (p.mean() ** 2 + q.mean() ** 2 + 0.01**2) * (p.var() + q.var() + 0.03**2)
            errors.append(0.85 * (1 - ssim) / 2 + 0.15 * abs(image[c, y + 1, x + 1] - warped[c, y + 1, x + 1]))
    return errors


def view_differences(target, neighbours, *, radius):
    """L_INT of a target with each neighbour, warped with the target's depth: list of the values of all pixels.

    Each view is a dict as for `merged_label`, with image (3, H, W) and label (H, W).
    """
    height, width = target["depth"].shape
    errors = []
    for view in neighbours:
        warped, valid = np.zeros_like(target["image"]), np.zeros((height, width), bool)
        T_source_target = np.linalg.inv(view["T"]) @ target["T"]
        for y, x in np.ndindex(height, width):
            d = target["depth"][y, x]
            found = look_up(x, y, d, target["K"], T_source_target, view["K"], width, height)
            if found:
                u, v, _ = found
                column, row = round(u), round(v)
                warped[:, y, x] = bilinear(view["image"], u, v)
                same = target["label"][y, x] == view["label"][row, column]
                borders = near_border(target["label"], x, y, radius) or near_border(view["label"], column, row, radius)
                valid[y, x] = same and not borders
        errors += photometric(target["image"], warped, valid)
    return errors
