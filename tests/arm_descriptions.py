"""Descriptions of arms of the tests' own, as their makers publish them."""

SIX = """
<mujoco><compiler angle="radian"/><worldbody><body name="base">
  <body name="link1" pos="0 0 0.1"><joint name="j1" axis="0 0 1" range="-3 3"/>
  <body name="link2" pos="0 0.05 0"><joint name="j2" axis="0 1 0" range="-2 2"/>
  <body name="link3" pos="0 0 0.4"><joint name="j3" axis="0 1 0" range="-2.5 2.5"/>
  <body name="link4" pos="0.35 0 0"><joint name="j4" axis="1 0 0" range="-3 3"/>
  <body name="link5"><joint name="j5" axis="0 1 0" range="-2 2"/>
  <body name="link6"><joint name="j6" axis="1 0 0" range="-3 3"/><site name="hand" pos="0.1 0 0"/>
</body></body></body></body></body></body></body></worldbody></mujoco>"""

URDF = """
<robot name="arm">
  <link name="base"/>
  <link name="shoulder"><visual><geometry><mesh filename="package://arm/shoulder.dae"/></geometry></visual></link>
  <link name="upper"/><link name="fore"/><link name="palm"/><link name="tip"/>
  <joint name="pan" type="revolute">
    <parent link="base"/><child link="shoulder"/><origin xyz="0 0 0.1"/><axis xyz="0 0 1"/>
    <limit lower="-2" upper="2" effort="1" velocity="1"/></joint>
  <joint name="lift" type="revolute">
    <parent link="shoulder"/><child link="upper"/><axis xyz="0 -1 0"/>
    <limit lower="-2" upper="2" effort="1" velocity="1"/></joint>
  <joint name="elbow" type="revolute">
    <parent link="upper"/><child link="fore"/><origin xyz="0.3 0 0"/><axis xyz="0 1 0"/>
    <limit lower="-2" upper="2" effort="1" velocity="1"/></joint>
  <joint name="turn" type="revolute">
    <parent link="fore"/><child link="palm"/><origin xyz="0.2 0 0"/><axis xyz="{axis}"/>
    <limit lower="-2" upper="2" effort="1" velocity="1"/></joint>
  <joint name="end" type="fixed"><parent link="palm"/><child link="tip"/><origin xyz="0.1 0 0"/></joint>
</robot>"""
