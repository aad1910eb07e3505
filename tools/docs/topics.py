"""Topics and services of the nodes, with their types and one line about each, for the reference and for tests."""

from collections.abc import Mapping

INPUT_TOPICS: Mapping[str, str] = {
    "color/image_raw": "sensor_msgs/msg/Image",
    "color/image_raw/compressed": "sensor_msgs/msg/CompressedImage",
    "color/camera_info": "sensor_msgs/msg/CameraInfo",
    "depth/image_raw": "sensor_msgs/msg/Image",
    "depth/image_raw/compressedDepth": "sensor_msgs/msg/CompressedImage",
}

SEGMENTATION_TOPICS: Mapping[str, str] = {
    "segmentation/mask": "sensor_msgs/msg/Image",
    "segmentation/mask/compressed": "sensor_msgs/msg/CompressedImage",
    "segmentation/confidence": "sensor_msgs/msg/Image",
    "segmentation/overlay": "sensor_msgs/msg/Image",
    "segmentation/overlay/compressed": "sensor_msgs/msg/CompressedImage",
    "segmentation/camera_info": "sensor_msgs/msg/CameraInfo",
    "segmentation/label_info": "vision_msgs/msg/LabelInfo",
    "segmentation/points": "sensor_msgs/msg/PointCloud2",
}

ADAPTATION_TOPICS: Mapping[str, str] = {
    "model_update": "s4net_ros/msg/ModelUpdate",
    "adaptation/status": "s4net_ros/msg/AdaptationStatus",
    "adaptation/keyframes": "visualization_msgs/msg/MarkerArray",
}

MAP_TOPICS: Mapping[str, str] = {
    "semantic_map/points": "sensor_msgs/msg/PointCloud2",
    "semantic_map/grid": "nav_msgs/msg/OccupancyGrid",
}

PUBLISHED = {"segmentation": SEGMENTATION_TOPICS, "adaptation": ADAPTATION_TOPICS, "semantic_map": MAP_TOPICS}
"""Topics that each node publishes: relative name -> message type."""

TOPIC_HELP: Mapping[str, str] = {
    "color/image_raw": "What is labelled: rgb8, bgr8, rgba8, bgra8 or mono8, and what cv_bridge turns into rgb8.",
    "color/image_raw/compressed": "The same as JPEG or PNG; `stream.color_transport` chooses one of the two.",
    "color/camera_info": "Calibration of the colour camera, distortion included.",
    "depth/image_raw": "Depth aligned to colour: 16UC1 in millimetres or 32FC1 in metres; 0, NaN and infinity = none.",
    "depth/image_raw/compressedDepth": "The same as PNG; `stream.depth_transport` chooses one of the two.",
    "segmentation/mask": "mono8: class ids, 255 = unlabelled; stamp and frame of the colour image.",
    "segmentation/mask/compressed": "The same as PNG.",
    "segmentation/confidence": "mono8: probability of the label, 255 = certain; 32FC1 with 0..1 by a setting.",
    "segmentation/overlay": "rgb8: colour with the labels painted over it, for people.",
    "segmentation/overlay/compressed": "The same as JPEG.",
    "segmentation/camera_info": "Calibration that belongs to the images above.",
    "segmentation/label_info": "Names of the class ids, and the smallest probability of a label; latched.",
    "segmentation/points": "Points in the order of the mask's pixels: x, y, z in metres (NaN = no depth), rgb, label.",
    "model_update": "New weights, as the name of a file; latched; the nodes that label listen.",
    "adaptation/status": "Once a second: losses, agreement, versions, dropped and rejected frames by reason.",
    "adaptation/keyframes": "Keyframes, red to green by agreement with others; red lines join contradictions; latched.",
    "semantic_map/points": "Voxels: x, y, z in metres, mean rgb, label, confidence (share of the votes); latched.",
    "semantic_map/grid": "The map from above: 100 where a class blocks, 0 = free, -1 = unknown; latched.",
}
"""One line about every topic that the nodes read or write."""

SERVICES: Mapping[str, tuple[str, str]] = {
    "~/pause": ("std_srvs/srv/SetBool", "true = stop learning, false = go on; labels keep coming."),
    "~/reset": ("std_srvs/srv/Trigger", "Back to the base model; all keyframes are forgotten."),
    "~/rollback": ("std_srvs/srv/Trigger", "Back to the version before."),
    "~/save_model": ("s4net_ros/srv/SaveModel", "Write the weights in use to a file."),
}
"""Services of the adaptation node: type, and one line about each."""
MAP_SERVICES: Mapping[str, tuple[str, str]] = {
    "~/save": ("s4net_ros/srv/MapFile", "Write the map to a file."),
    "~/load": ("s4net_ros/srv/MapFile", "Put a saved map in the place of this one; its votes stay."),
    "~/find": (
        "s4net_ros/srv/FindObjects",
        "Places of a class: boxes around 8 or more voxels that touch, the largest first.",
    ),
}
"""Services of the node semantic_map."""
