"""Draws a topology as SVG, readable on light and dark pages."""

from __future__ import annotations

from xml.sax.saxutils import escape

from wgpy.labs.topology import Cable, Node, Topology, Tunnel

_CELL = (190, 116)
_BOX = 148  # the width of a node
_STYLE = """\
text { font: 12px ui-sans-serif, system-ui, sans-serif; fill: #1f2328; text-anchor: middle }
.name { font-weight: 600; font-size: 14px } .small { fill: #59636e; font-size: 11px }
.node { fill: #f6f8fa; stroke: #818b98; stroke-width: 1.2 } .gateway { stroke: #88171a; stroke-width: 2 }
.internet { stroke-dasharray: 5 4 } .cable { stroke: #818b98; stroke-width: 1.6 } .poor { stroke-dasharray: 7 3 2 3 }
.tunnel { stroke: #88171a; stroke-width: 2.4; fill: none; stroke-dasharray: 9 5 } .label { fill: #88171a }
@media (prefers-color-scheme: dark) {
text { fill: #f0f6fc } .small { fill: #9198a1 } .node { fill: #151b23; stroke: #656c76 } .cable { stroke: #656c76 }
.gateway, .tunnel { stroke: #ff7b72 } .label { fill: #ff7b72 } }"""


def draw(topology: Topology) -> str:
    """The SVG document. The same topology gives the same text."""
    width = (max(node.column for node in topology.nodes) + 1) * _CELL[0]
    height = (max(node.row for node in topology.nodes) + 1) * _CELL[1] + 16
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" width="{width:g}" role="img">',
        f"<title>{escape(topology.title)}</title>",
        f"<style>\n{_STYLE}\n</style>",
        *(_cable(topology, cable) for cable in topology.cables),
        *(_tunnel(topology, tunnel) for tunnel in topology.tunnels),
        *(_node(topology, node) for node in topology.nodes),
        *(_label(topology, tunnel) for tunnel in topology.tunnels if tunnel.label),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _centre(node: Node) -> tuple[float, float]:
    return (node.column + 0.5) * _CELL[0], (node.row + 0.5) * _CELL[1] + 12


def _cable(topology: Topology, cable: Cable) -> str:
    (x1, y1), (x2, y2) = _centre(topology.node(cable.a)), _centre(topology.node(cable.b))
    poor = " poor" if cable.is_poor else ""
    return f'<line class="cable{poor}" x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"/>'


def _arc(topology: Topology, tunnel: Tunnel) -> tuple[tuple[float, float], ...]:
    """The two ends of a curve, and between them the point that bends it: so the curve passes beside the nodes that
    stand between its ends."""
    (x1, y1), (x2, y2) = _centre(topology.node(tunnel.a)), _centre(topology.node(tunnel.b))
    length = ((x2 - x1) ** 2 + (y2 - y1) ** 2) ** 0.5
    same = [other for other in topology.tunnels if {other.a, other.b} == {tunnel.a, tunnel.b}]
    side = 1 if (x2 >= x1) == (tunnel is same[0]) else -1  # a second tunnel bends to the other side
    bend = side * min(104, length / 4)
    middle = (x1 + x2) / 2 + bend * (y2 - y1) / length, (y1 + y2) / 2 - bend * (x2 - x1) / length
    return (x1, y1), middle, (x2, y2)


def _tunnel(topology: Topology, tunnel: Tunnel) -> str:
    (x1, y1), (x, y), (x2, y2) = _arc(topology, tunnel)
    return f'<path class="tunnel" d="M{x1:g} {y1:g}Q{x:g} {y:g} {x2:g} {y2:g}"/>'


def _label(topology: Topology, tunnel: Tunnel) -> str:
    """A tunnel's label above the curve, as near to its middle as the nodes leave room."""
    (x1, y1), (x, y), (x2, y2) = _arc(topology, tunnel)
    places = []
    for part in (0.5, 0.55, 0.45, 0.6, 0.4, 0.65, 0.35, 0.7, 0.3, 0.75, 0.25, 0.8, 0.2):
        one, two, three = (1 - part) ** 2, 2 * part * (1 - part), part**2
        places.append((one * x1 + two * x + three * x2, one * y1 + two * y + three * y2 - 7))
    across, down = len(tunnel.label) * 3.3 + _BOX / 2, 12  # half of what a label and a node take
    boxes = [(*_centre(node), _height(topology, node) / 2 + down) for node in topology.nodes]
    free = [(a, b) for a, b in places if not any(abs(a - c) < across and abs(b - 4 - d) < h for c, d, h in boxes)]
    at_x, at_y = (free or places)[0]
    return f'<text class="label" x="{at_x:g}" y="{at_y:g}">{escape(tunnel.label)}</text>'


def _small(topology: Topology, node: Node) -> list[str]:
    """The lines below a node's name."""
    addresses = [] if node.kind == "internet" else topology.addresses(node.name)
    return [*([node.note] if node.note else []), *addresses]


def _height(topology: Topology, node: Node) -> int:
    return 26 + 14 * len(_small(topology, node))


def _node(topology: Topology, node: Node) -> str:
    x, y = _centre(node)
    small, height = _small(topology, node), _height(topology, node)
    top = y - height / 2
    radius = 26 if node.kind == "internet" else 6
    lines = [
        f'<rect class="node {node.kind}" x="{x - _BOX / 2:g}" y="{top:g}" width="{_BOX}" height="{height}" '
        f'rx="{radius}"/>',
        f'<text class="name" x="{x:g}" y="{top + 18:g}">{escape(node.name)}</text>',
        *(
            f'<text class="small" x="{x:g}" y="{top + 33 + 14 * index:g}">{escape(text)}</text>'
            for index, text in enumerate(small)
        ),
    ]
    return "\n".join(lines)
