"""S4-Net on ROS 2: topics become frames, labels become topics. All that is not ROS lives in `s4net_core`."""

import pkgutil

from s4net_core.machine.waiting import spin_briefly

spin_briefly()  # some nodes import PyTorch as soon as they are imported themselves

# The generated messages (s4net_ros.msg, s4net_ros.srv) are installed elsewhere when this code runs from its sources.
__path__ = pkgutil.extend_path(__path__, __name__)
